# SPDX-License-Identifier: Apache-2.0
"""A training run and its folder: plan, metrics, checkpoints, results."""
