# SPDX-License-Identifier: Apache-2.0
"""Verbs that train, and prepare or finish a training."""
