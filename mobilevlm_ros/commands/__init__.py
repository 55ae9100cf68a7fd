# SPDX-License-Identifier: Apache-2.0
"""One module per verb of `mobilevlm`; each has `add_arguments(parser)` and `main(args) -> int`."""
