# SPDX-License-Identifier: Apache-2.0
"""Verbs that answer: on the command line, over HTTP, to an agent."""
