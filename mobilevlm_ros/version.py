# SPDX-License-Identifier: Apache-2.0
"""The version of this package, for modules that must not import the front door."""

__version__ = "0.1.0"
