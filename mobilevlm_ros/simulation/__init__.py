# SPDX-License-Identifier: Apache-2.0
"""Rendered ground-vehicle scenes with ground truth, for the camera, the training data and the tests."""
