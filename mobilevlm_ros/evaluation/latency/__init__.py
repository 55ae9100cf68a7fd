# SPDX-License-Identifier: Apache-2.0
"""How fast a model is on this machine: the paper's latency table and a plot."""
