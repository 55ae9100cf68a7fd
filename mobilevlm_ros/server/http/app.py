# SPDX-License-Identifier: Apache-2.0
"""The ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mobilevlm_ros.server.api_error import ApiError
from mobilevlm_ros.server.http.chat import ChatRoutes
from mobilevlm_ros.server.http.guard import Guard
from mobilevlm_ros.server.http.limits import Limits, RateLimiter
from mobilevlm_ros.server.http.live import LiveRoutes
from mobilevlm_ros.server.http.prometheus import CONTENT_TYPE, ServerMetrics
from mobilevlm_ros.server.http.responses import error_response
from mobilevlm_ros.server.services.service import VisionService

PAGE = Path(__file__).parents[1] / "page"


def make_app(
    service: VisionService, limits: Limits | None = None, token: str = "", hosts: Iterable[str] = ()
) -> Starlette:
    """The application over a service, which it closes at its end.

    Args:
        service: answers.
        limits: of requests.
        token: see `Guard`.
        hosts: see `Guard`.
    """
    limits = limits or Limits()
    metrics = ServerMetrics()
    chat, live = ChatRoutes(service, limits, metrics), LiveRoutes(service, limits)

    async def scrape(request: Request) -> Response:
        """GET /metrics."""
        return Response(metrics.text(await service.status()), media_type=CONTENT_TYPE)

    async def page(request: Request) -> Response:
        """GET /."""
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await service.close()

    return Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Mount("/page", StaticFiles(directory=PAGE), name="page"),
            Route("/healthz", live.healthz, methods=["GET"]),
            Route("/metrics", scrape, methods=["GET"]),
            Route("/v1/models", chat.models, methods=["GET"]),
            Route("/v1/models/{name:path}", chat.model, methods=["GET"]),
            Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
            Route("/api/state", live.state, methods=["GET"]),
            Route("/api/frame", live.frame, methods=["GET"]),
            Route("/api/events", live.events, methods=["GET"]),
        ],
        middleware=[
            Middleware(Guard, token=token, hosts=hosts, rate=RateLimiter(limits.rate), metrics=metrics)
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, wrong method) in the API's shape."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    if error.status_code == 404:
        told = ApiError(
            404, f"there is nothing at {path!r}: see the API's list in docs/server.md", "not_found"
        )
    elif error.status_code == 405:
        told = ApiError(405, f"{request.method} is not allowed on {path!r}", "method_not_allowed")
    else:
        told = ApiError(error.status_code, str(error.detail), "error")
    response = error_response(told)
    for name, value in (error.headers or {}).items():
        response.headers.setdefault(name, value)
    return response
