# SPDX-License-Identifier: Apache-2.0
"""Reading and writing files: the only package that replaces or deletes what a user may own."""
