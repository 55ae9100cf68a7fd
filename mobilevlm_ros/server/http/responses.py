# SPDX-License-Identifier: Apache-2.0
"""JSON, errors and event streams; what a client that hangs up ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mobilevlm_ros.server.api_error import ApiError

T = TypeVar("T")

HUNG_UP = 499
"""Nobody reads it: nginx's status for a client that closed the connection, for the metrics."""


class Json(Response):
    """JSON in ASCII: a lone surrogate in what a client sent must not break the answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return encode(content)


def encode(content: Any) -> bytes:
    """Compact ASCII JSON; ValueError for NaN and infinity, which JSON has not."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def error_response(error: ApiError) -> Response:
    """The error object with its status."""
    return Json(error.body(), error.status, error.headers())


class EventStream(Response):
    """Server-sent events until they end, the client hangs up, or the time is over.

    Args:
        events: what goes over the wire; closed in any case.
        room: what it holds meanwhile; let go of in any case.
        seconds: the longest that it may take: a client that stops reading must not hold it for ever.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], room: contextlib.ExitStack, seconds: float | None = None
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self._events = events
        self._room = room
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""

        async def pump() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._events:
                await send(_body(event, True))
            await send(_body(b"", False))

        tasks = [asyncio.ensure_future(pump()), asyncio.ensure_future(hung_up(receive))]
        try:
            await asyncio.wait(tasks, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            await _cancelled(tasks)
            await self._events.aclose()
            self._room.close()


def event(data: Any) -> bytes:
    """A server-sent event of a JSON value, or of a text as it is."""
    return b"data: " + (data.encode() if isinstance(data, str) else encode(data)) + b"\n\n"


async def unless_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None when the client hung up first, which cancels it."""
    tasks: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(work),
        asyncio.ensure_future(hung_up(request.receive)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        await _cancelled(tasks)


async def hung_up(receive: Receive) -> None:
    """Returns when the client closes the connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Ends tasks and waits until they have ended."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _body(data: bytes, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
