# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's GGUF files: read as a checkpoint, written from one."""
