# SPDX-License-Identifier: Apache-2.0
"""Runs the application on a socket, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from mobilevlm_ros.errors import MobileVLMError, OptionError
from mobilevlm_ros.server.http.app import make_app
from mobilevlm_ros.server.http.guard import LOOPBACK
from mobilevlm_ros.server.http.limits import Limits
from mobilevlm_ros.server.services.service import VisionService

SHUTDOWN_SECONDS = 3
"""For answers on their way when a signal comes; then they are cut."""


BACKLOG = 1024
"""Connections that may wait to be accepted."""


def check_address(host: str, token: str) -> bool:
    """Whether `host` is reachable from this machine only.

    Raises OptionError: it is not, and there is no token.
    """
    local = is_loopback(host)
    if not local and not token:
        raise OptionError(
            f"--host {host} lets others in, who could watch the cameras: set --token (or the environment "
            "variable MOBILEVLM_TOKEN) too"
        )
    return local


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the system choose. Raises MobileVLMError: the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # from now on clients wait instead of being refused
    except OSError as error:
        raise MobileVLMError(
            f"{host}:{port} cannot be listened to ({error.strerror or error}): choose another --port"
        ) from error
    return bound


def make_server(
    service: VisionService, limits: Limits, token: str = "", local: bool = True
) -> uvicorn.Server:
    """The server of an application; `run(sockets=[listen(...)])` serves until a signal comes.

    Args:
        local: the address is this machine's own: only requests to such names are served.
    """
    app = make_app(service, limits, token, LOOPBACK if local else ())
    return make_uvicorn(app, limits.questions + 8 * limits.viewers + 256)


def make_uvicorn(app: ASGIApp, connections: int = 256) -> uvicorn.Server:
    """A server of an application with so many connections at most; it logs no requests: what is asked is
    nobody's business.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=30,
        limit_concurrency=connections,
        backlog=BACKLOG,
        lifespan="on",
    )
    return uvicorn.Server(config)


class AnnouncedServer(uvicorn.Server):
    """A server that says when it serves: from then on a signal ends it in order.

    Args:
        server: whose configuration it takes.
        service: is closed here where a signal came before it served; else the application closes it.
        announce: called once it serves.
    """

    def __init__(self, server: uvicorn.Server, service: VisionService, announce: Callable[[], None]) -> None:
        super().__init__(server.config)
        self._service = service
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server.startup."""
        await super().startup(sockets=sockets)
        if self.started:
            self._announce()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes."""
        try:
            super().run(sockets=sockets)
        finally:
            if not self.started:
                asyncio.run(self._service.close())  # its threads must not outlive it


def address_of(bound: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
