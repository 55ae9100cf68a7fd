# SPDX-License-Identifier: Apache-2.0
"""The work itself: in this process, or on the machines of a Ray cluster."""
