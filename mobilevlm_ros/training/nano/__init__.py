# SPDX-License-Identifier: Apache-2.0
"""Trains nano, the embedded default, from random weights: scenes first, then honesty about the rest."""
