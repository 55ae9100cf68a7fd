# SPDX-License-Identifier: Apache-2.0
"""Verbs that make, describe and convert bundles and checkpoints."""
