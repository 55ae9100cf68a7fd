# SPDX-License-Identifier: Apache-2.0
"""Standing questions: their YAML, their state, and whether a picture is new."""
