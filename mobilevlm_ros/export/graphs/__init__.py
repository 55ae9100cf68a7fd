# SPDX-License-Identifier: Apache-2.0
"""Writes the ONNX graphs of a bundle."""
