# SPDX-License-Identifier: Apache-2.0
"""Verbs that measure a model, and tune it to a machine."""
