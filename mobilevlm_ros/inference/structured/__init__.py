# SPDX-License-Identifier: Apache-2.0
"""Answers of a given format, enforced token by token."""
