# SPDX-License-Identifier: Apache-2.0
"""Whether a confidence of 0.9 is right nine times in ten: temperature scaling and its plot."""
