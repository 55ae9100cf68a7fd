# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as published: directories, hub ids and llama.cpp's GGUF files; random ones for tests."""
