# SPDX-License-Identifier: Apache-2.0
"""From recordings and what was said about them to training data that a person has looked through."""
