# SPDX-License-Identifier: Apache-2.0
"""Nano's exam: questions about simulated scenes whose answers are known."""
