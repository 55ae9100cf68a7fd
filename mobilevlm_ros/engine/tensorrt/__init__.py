# SPDX-License-Identifier: Apache-2.0
"""The TensorRT backend: versions 8.5 to 11. See docs/engines.md."""
