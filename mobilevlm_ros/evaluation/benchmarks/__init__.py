# SPDX-License-Identifier: Apache-2.0
"""The six benchmarks of the MobileVLM papers, one file each: load, prompt, score as their own scorers do."""
