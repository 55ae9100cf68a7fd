# SPDX-License-Identifier: Apache-2.0
"""What an export changed: a bundle's answers beside those of the checkpoint."""
