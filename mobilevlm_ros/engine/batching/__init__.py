# SPDX-License-Identifier: Apache-2.0
"""How several sequences run at once, on backends that can and on those that cannot."""
