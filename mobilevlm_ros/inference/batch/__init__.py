# SPDX-License-Identifier: Apache-2.0
"""Several questions about one picture at once."""
