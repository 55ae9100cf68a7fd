# SPDX-License-Identifier: Apache-2.0
"""MobileVLM in PyTorch: the definition every engine is compared with. Import its modules one by one."""
