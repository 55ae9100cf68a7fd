# SPDX-License-Identifier: Apache-2.0
"""JPEG, PNG and WebP: for each, its header, whether it is whole, and its pixels."""
