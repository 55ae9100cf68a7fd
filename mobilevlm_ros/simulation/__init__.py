# SPDX-License-Identifier: Apache-2.0
"""Rendered ground-vehicle scenes with ground truth: one description for the camera, the training data and the tests."""
