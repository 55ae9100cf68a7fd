# SPDX-License-Identifier: Apache-2.0
"""Free answers, token by token: sampling, stop strings, draft tokens."""
