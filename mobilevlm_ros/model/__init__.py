# SPDX-License-Identifier: Apache-2.0
"""MobileVLM in PyTorch: the definition every engine is compared with. Import the submodules; this file stays torch-free."""
