# SPDX-License-Identifier: Apache-2.0
"""Which pictures of a recording the model is asked about: cameras, times, how often, what is new."""
