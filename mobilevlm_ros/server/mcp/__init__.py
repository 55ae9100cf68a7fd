# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol: an agent looks through the cameras."""
