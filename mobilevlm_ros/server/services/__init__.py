# SPDX-License-Identifier: Apache-2.0
"""What HTTP and MCP stand on: a bundle in this process, or a running node."""
