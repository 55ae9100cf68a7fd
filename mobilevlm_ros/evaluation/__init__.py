# SPDX-License-Identifier: Apache-2.0
"""Measures how right the answers are."""
