# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: one table, and what guards it."""
