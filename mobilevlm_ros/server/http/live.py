# SPDX-License-Identifier: Apache-2.0
"""What the web page asks for: state, live pictures, captions and monitors as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import asdict
from math import isfinite
from time import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.server.api_error import ApiError
from mobilevlm_ros.server.http.limits import Gate, Limits
from mobilevlm_ros.server.http.responses import HUNG_UP, EventStream, Json, event, unless_hung_up
from mobilevlm_ros.server.services.service import VisionService

TICK = 0.2
"""Seconds between looks whether a caption or monitor changed."""
HEARTBEAT = 2.0
"""Seconds after which the state is told although nothing changed: the page sees that the server lives."""
MAX_WIDTH = 1920


class LiveRoutes:
    """The page's routes; read only.

    Args:
        service: is watched.
        limits: of the server.
    """

    def __init__(self, service: VisionService, limits: Limits) -> None:
        self._service = service
        self._viewers = Gate(limits.viewers, f"{limits.viewers} pages are open")
        self._looking = Gate(2 * limits.viewers, "too many pictures are being fetched")

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: 200 when questions can be answered, else 503 with the reason."""
        status = await self._service.status()
        if not status.ready:
            raise ApiError(503, status.reason, "not_ready", retry_after=1)
        return Json({"status": "ok", "model": status.model, "backend": status.backend})

    async def state(self, request: Request) -> Response:
        """GET /api/state: everything that the page shows but the picture."""
        return Json(await self._state())

    async def frame(self, request: Request) -> Response:
        """GET /api/frame?camera=NAME&after=STAMP&width=PIXELS: the newest frame as JPEG.

        With `after` (the header X-Stamp of the frame before) it waits for another one; where none comes in
        some seconds, that same one again.
        """
        query = request.query_params
        after, width = _number(query.get("after", "-1"), "after"), _number(query.get("width", "0"), "width")
        with self._looking.passing():
            work = self._service.look(query.get("camera", ""), after, min(max(0, width), MAX_WIDTH))
            seen = await unless_hung_up(request, work)
        if seen is None:
            return Response(status_code=HUNG_UP)
        headers = {
            "cache-control": "no-store",
            "x-stamp": str(seen.stamp_ns),
            "x-width": str(seen.width),
            "x-height": str(seen.height),
        }
        return Response(seen.jpeg, media_type="image/jpeg", headers=headers)

    async def events(self, request: Request) -> Response:
        """GET /api/events: the state as server-sent events, whenever something changes."""
        room = contextlib.ExitStack()
        room.enter_context(self._viewers.passing())
        return EventStream(self._changes(), room)

    async def _changes(self) -> AsyncGenerator[bytes, None]:
        async with self._service.watching():
            told: Any = None
            quiet = 0.0
            while True:
                now = (self._service.captions(), self._service.monitors())
                if now != told or quiet >= HEARTBEAT:
                    yield event(await self._state())
                    told, quiet = now, 0.0
                await asyncio.sleep(TICK)
                quiet += TICK

    async def _state(self) -> dict[str, Any]:
        status = await self._service.status()
        try:
            cameras = [asdict(camera) for camera in await self._service.cameras()]
            name = await self._service.model_name()
        except MobileVLMError:
            cameras, name = [], ""
        return {
            "now": time(),
            "live": self._service.live,
            "ready": status.ready,
            "reason": status.reason,
            "model": status.model,
            "name": name,
            "backend": status.backend,
            "numbers": {key: value for key, value in status.numbers.items() if isfinite(value)},
            "cameras": cameras,
            "captions": [_exact(asdict(caption)) for caption in self._service.captions()],
            "monitors": [_exact(asdict(monitor)) for monitor in self._service.monitors()],
        }


def _exact(told: dict[str, Any]) -> dict[str, Any]:
    """Nanoseconds as texts: a page's numbers hold 53 bits only."""
    return {key: str(value) if key.endswith("_ns") else value for key, value in told.items()}


def _number(text: str, name: str) -> int:
    if not text.removeprefix("-").isdecimal() or len(text) > 20:
        raise ApiError(400, f"{name} is {text[:40]!r}: give a whole number", "invalid_parameter", name)
    return int(text)
