# SPDX-License-Identifier: Apache-2.0
"""Stores matrices in 4 or 8 bits: round to nearest, and GPTQ with its calibration prompts."""
