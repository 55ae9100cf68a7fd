# SPDX-License-Identifier: Apache-2.0
"""Verbs about recordings, and about the memory made of them."""
