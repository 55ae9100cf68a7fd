# SPDX-License-Identifier: Apache-2.0
"""The PyTorch model as a backend: the reference for all others."""
