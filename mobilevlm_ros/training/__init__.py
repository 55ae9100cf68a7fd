# SPDX-License-Identifier: Apache-2.0
"""Training: the nano model from scratch on simulated scenes."""
