# SPDX-License-Identifier: Apache-2.0
"""Asks a model a benchmark's questions: many about one picture at once, and none twice."""
