# SPDX-License-Identifier: Apache-2.0
"""A memory that an agent searches: a file, or that of a running node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, TypeAlias

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.memory.record import Match, Query
from mobilevlm_ros.memory.search import Searcher
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import TextVectors

Search: TypeAlias = "Callable[[Query], Awaitable[list[Match]]]"
"""Searches a memory. Raises MobileVLMError."""


def file_memory(path: Path, vectors: TextVectors) -> Search:
    """The memory of a file, which must be there now. Raises MemoryFileError."""
    searcher, lock = Searcher(MemoryStore(path), vectors), Lock()

    def search(query: Query) -> list[Match]:
        with lock:
            return searcher.search(query)

    return lambda query: asyncio.to_thread(search, query)


def add_memory_tool(server: MCPServer[None], search: Search) -> None:
    """Gives a server the tool `search_memory`."""

    @server.tool()
    async def search_memory(
        text: Annotated[
            str,
            Field(description="plain words, e.g. 'where did you last see a red ball?'; empty: the newest"),
        ] = "",
        camera: Annotated[str, Field(description="only this camera; empty: all")] = "",
        kind: Annotated[str, Field(description="only 'caption', 'monitor' or 'answer'; empty: all")] = "",
        start: Annotated[float, Field(description="only from this stamp on, seconds; 0: any")] = 0.0,
        end: Annotated[float, Field(description="only up to this stamp, seconds; 0: any")] = 0.0,
        x: Annotated[float, Field(description="with radius: a place, metres")] = 0.0,
        y: Annotated[float, Field(description="with radius: a place, metres")] = 0.0,
        radius: Annotated[float, Field(description="only within so many metres of x, y; 0: anywhere")] = 0.0,
        limit: Annotated[int, Field(ge=1, le=100)] = 5,
    ) -> list[dict[str, Any]]:
        """What the cameras have shown before, best match first; for the last (first) time something was seen
        the newest (oldest) first. `score` (0 to 1) says how much of what you asked for is in the text: below
        0.7 something is missing. An empty list: it was not seen.
        """
        query = Query(text, camera, kind, int(start * 1e9), int(end * 1e9), x, y, radius, limit)
        try:
            return [_told(match) for match in await search(query)]
        except MobileVLMError as error:
            raise ToolError(str(error)) from error


def _told(match: Match) -> dict[str, Any]:
    record, place = match.record, match.record.position
    told: dict[str, Any] = {
        "text": record.shown,
        "score": round(match.score, 3),
        "kind": record.kind,
        "camera": record.camera,
        "stamp": f"{record.stamp_ns // 1_000_000_000}.{record.stamp_ns % 1_000_000_000:09d}",
        "frame_id": record.frame_id,
        "confidence": round(record.confidence, 3),
    }
    if place is not None:
        told["position"] = {"frame": place.frame, "x": place.x, "y": place.y, "z": place.z}
    return told
