# SPDX-License-Identifier: Apache-2.0
"""Ask a robot's cameras questions in plain language, on the machine it carries."""

__version__ = "0.1.0"
