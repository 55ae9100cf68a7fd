# SPDX-License-Identifier: Apache-2.0
"""The chat completions API: requests in, completions and chunks out."""
