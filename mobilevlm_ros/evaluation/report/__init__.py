# SPDX-License-Identifier: Apache-2.0
"""Our rows beside the published ones: a table and a picture."""
