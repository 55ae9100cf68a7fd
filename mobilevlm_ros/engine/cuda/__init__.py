# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's driver and runtime library through ctypes: which GPU there is, its memory, streams and graphs."""
