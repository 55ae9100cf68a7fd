# SPDX-License-Identifier: Apache-2.0
"""MCP over streamable HTTP, behind the same guard as the other HTTP server."""

from __future__ import annotations

from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from mobilevlm_ros.server.http.guard import LOOPBACK, Guard
from mobilevlm_ros.server.http.limits import RateLimiter
from mobilevlm_ros.server.http.prometheus import ServerMetrics
from mobilevlm_ros.server.mcp.memory import Search
from mobilevlm_ros.server.mcp.server import make_mcp_server
from mobilevlm_ros.server.services.service import VisionService


def make_mcp_app(
    service: VisionService, token: str = "", local: bool = True, memory: Search | None = None
) -> ASGIApp:
    """The ASGI application, which serves /mcp.

    Args:
        token: that each request must bear; empty: none is needed.
        local: only requests to names of this machine are served.
        memory: what the tool `search_memory` searches; None: there is no such tool.
    """
    # Hosts and origins are the guard's; the library's own check wants a list of addresses and ports.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = make_mcp_server(service, memory).streamable_http_app(transport_security=security)
    return Guard(app, token, LOOPBACK if local else (), RateLimiter(0.0), ServerMetrics())
