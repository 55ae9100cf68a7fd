# SPDX-License-Identifier: Apache-2.0
"""Who may ask: host and origin of the request, the token, how often; and what came of each request."""

from __future__ import annotations

import hmac
import logging
import traceback
from collections.abc import Iterable
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mobilevlm_ros.server.api_error import ApiError, api_error
from mobilevlm_ros.server.http.limits import RateLimiter
from mobilevlm_ros.server.http.prometheus import ServerMetrics
from mobilevlm_ros.server.http.responses import error_response

logger = logging.getLogger(__name__)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})

OPEN_PATHS = ("/", "/healthz")
"""Served without a token: the page is the same for everybody, and asks for the token itself."""
OPEN_FOLDER = "/page/"

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; "
        b"form-action 'none'",
    ),
)


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: what it guards.
        token: that each request must bear; empty: none is needed.
        hosts: names under which the server may be addressed; empty: any. A web page of another site that
            points its name at this machine (DNS rebinding) is kept out by this.
        rate: of each client.
        metrics: are told of every request.
    """

    def __init__(
        self, app: ASGIApp, token: str, hosts: Iterable[str], rate: RateLimiter, metrics: ServerMetrics
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(hosts)
        self._rate = rate
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = monotonic(), 0

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *SECURITY_HEADERS]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, guarded_send)
        except Exception as error:
            told = api_error(error)
            if told.status == 500:
                log_unexpected(error)
            if status == 0:
                await error_response(told)(scope, receive, guarded_send)
        finally:
            self._metrics.request(_handler(scope), status, monotonic() - start)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = _name(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            raise ApiError(
                403,
                f"this server is not called {host[:80]!r}: address it as {', '.join(sorted(self._hosts))}",
                "host_refused",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise ApiError(403, "requests from pages of other sites are refused", "origin_refused")
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return
        if self._token and not self._authorized(headers.get("authorization", "")):
            raise ApiError(
                401, "the request bears no valid token: send 'Authorization: Bearer TOKEN'", "invalid_api_key"
            )
        client = scope.get("client")
        self._rate.check(client[0] if client else "")

    def _authorized(self, header: str) -> bool:
        kind, _, given = header.partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        return kind.lower() == "bearer" and same


def log_unexpected(error: BaseException) -> None:
    """Where an unexpected error happened. Its message stays out of the log: it may hold a question."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("a request failed with %s:\n%s", type(error).__name__, frames)


def _name(host: str) -> str:
    """A host without its port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _handler(scope: Scope) -> str:
    """Name of what served it: few different ones, whatever paths clients try."""
    return getattr(scope.get("endpoint"), "__name__", "none")
