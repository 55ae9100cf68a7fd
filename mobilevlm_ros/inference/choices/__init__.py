# SPDX-License-Identifier: Apache-2.0
"""Answers from a list: scored from the logits of one prefill."""
