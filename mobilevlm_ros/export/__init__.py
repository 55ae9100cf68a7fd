# SPDX-License-Identifier: Apache-2.0
"""Makes a bundle from a checkpoint. Needs PyTorch and onnx."""
