# SPDX-License-Identifier: Apache-2.0
"""The doors that need no ROS on the other side: HTTP (OpenAI-compatible, web page, metrics) and MCP."""
