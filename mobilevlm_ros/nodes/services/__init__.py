# SPDX-License-Identifier: Apache-2.0
"""What the node is asked: `ask_image`, `ask` and `~/reload_bundle`."""
