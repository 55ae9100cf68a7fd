# SPDX-License-Identifier: Apache-2.0
"""The ONNX Runtime backends: on the CPU, and on NVIDIA GPUs."""
