# SPDX-License-Identifier: Apache-2.0
"""What a job leaves: an MCAP of our messages, the same as JSON Lines, and a plot."""
