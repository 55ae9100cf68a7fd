# SPDX-License-Identifier: Apache-2.0
"""The Model Context Protocol: tools and resources with which an agent looks through the cameras."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from time import time
from typing import Annotated, Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.inference.types import AnswerFormat, Region, Request, SamplingParams
from mobilevlm_ros.inference.validate import MAX_FRAMES
from mobilevlm_ros.server.mcp.memory import Search, add_memory_tool
from mobilevlm_ros.server.services.service import CaptionInfo, MonitorInfo, Question, Reply, VisionService
from mobilevlm_ros.version import __version__

T = TypeVar("T", CaptionInfo, MonitorInfo)

DEFAULT = "default"
"""What stands for the nameless camera of a node in the address of a resource."""

HEAR_SECONDS = 10.0
"""Seconds that a tool waits for a caption or a monitor: they are made while somebody listens."""

INSTRUCTIONS = (
    "These tools look through the cameras of a robot. Ask short questions about what can be seen now. Every "
    "answer has a confidence from 0 to 1: do not rely on one below 0.5. Give `choices` for a decision: each "
    "gets a probability. `stamp` is when the picture was taken, in the robot's clock."
)


class RegionArgument(BaseModel):
    """A part of the picture, in pixels of the full picture."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)


CameraArgument = Annotated[str, Field(description="name from list_cameras; empty: the default camera")]


def make_mcp_server(service: VisionService, memory: Search | None = None) -> MCPServer[None]:
    """The server over a service, which it closes at its end; with a memory it has the tool
    `search_memory`.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncIterator[None]:
        yield
        await service.close()

    server: MCPServer[None] = MCPServer(
        "mobilevlm", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING", lifespan=lifespan
    )

    @server.tool()
    async def list_cameras() -> list[dict[str, Any]]:
        """The cameras: name, where the pictures come from, and seconds since the newest one (age)."""
        with _told():
            return [asdict(camera) for camera in await service.cameras()]

    @server.tool()
    async def ask_camera(
        question: Annotated[str, Field(description="about what the camera sees now, 1 to 2000 characters")],
        ctx: Context[None, Any],
        camera: CameraArgument = "",
        choices: Annotated[
            list[str] | None, Field(description="answer with one of these, with a probability for each")
        ] = None,
        region: RegionArgument | None = None,
        json_schema: Annotated[
            dict[str, Any] | None, Field(description="answer with JSON of this schema")
        ] = None,
        max_tokens: Annotated[int, Field(ge=1, le=1024)] = 128,
        frames: Annotated[
            int,
            Field(ge=1, le=MAX_FRAMES, description="ask about this many of its last frames at once"),
        ] = 1,
        frame_interval: Annotated[
            float, Field(ge=0, le=3600, description="with frames: seconds between them; 0: as they are kept")
        ] = 0.0,
    ) -> dict[str, Any]:
        """Ask a question about a camera's newest picture, or about several of its last frames (did something
        move?; the node has to keep a history). Returns the answer, how sure the model is, and the
        stamp of the picture.
        """
        form = (
            AnswerFormat()
            if json_schema is None
            else AnswerFormat("json", json_schema=json.dumps(json_schema))
        )
        part = None if region is None else Region(region.x, region.y, region.width, region.height)
        request = Request(
            question,
            choices=tuple(choices or ()),
            region=part,
            sampling=SamplingParams(max_tokens=max_tokens),
            answer_format=form,
        )
        with _told():
            pieces = service.ask(_question(request, camera, frames, frame_interval))
            async with contextlib.aclosing(pieces):
                text, count = "", 0
                async for piece in pieces:
                    if isinstance(piece, Reply):
                        return _answer(piece, request.choices)
                    text, count = text + piece, count + 1
                    await ctx.report_progress(count, None, text.lstrip())
        raise ToolError("the answer ended without a result")

    @server.tool(structured_output=False)
    async def look(
        camera: CameraArgument = "", width: Annotated[int, Field(ge=16, le=1920)] = 640
    ) -> list[Any]:
        """The camera's newest picture itself, at most `width` pixels wide, and its stamp."""
        with _told():
            seen = await service.look(camera, width=width)
        about = {
            "camera": seen.camera,
            "width": seen.width,
            "height": seen.height,
            "stamp": _seconds(seen.stamp_ns),
            "frame_id": seen.frame_id,
        }
        return [Image(data=seen.jpeg, format="jpeg"), json.dumps(about)]

    @server.tool()
    async def latest_caption(camera: CameraArgument = "") -> dict[str, Any]:
        """What a camera showed in the running node's newest caption of it, and how old that is (age)."""
        with _told():
            found = await _heard(service, lambda: [c for c in service.captions() if c.camera == camera])
        if not found:
            raise ToolError(
                f"no caption of camera {camera!r} came within {HEAR_SECONDS:g} s: captions are made by a "
                "running node (--ros); ask_camera with 'Describe the scene.' instead"
            )
        return _with_age(found[0])

    @server.tool()
    async def monitors() -> list[dict[str, Any]]:
        """The standing questions of the running node: raised, clear or unknown, and how probable a yes is."""
        with _told():
            return [_with_age(monitor) for monitor in await _heard(service, service.monitors)]

    if memory is not None:
        add_memory_tool(server, memory)

    @server.resource("mobilevlm://cameras", mime_type="application/json")
    async def cameras_resource() -> str:
        """The cameras."""
        return json.dumps([asdict(camera) for camera in await service.cameras()])

    @server.resource("mobilevlm://cameras/{camera}/frame", mime_type="image/jpeg")
    async def frame_resource(camera: str) -> bytes:
        """The newest picture of a camera ('default': the nameless one)."""
        return (await service.look("" if camera == DEFAULT else camera, width=1280)).jpeg

    return server


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What cannot be answered is told to the model in the words of the error."""
    try:
        yield
    except MobileVLMError as error:
        raise ToolError(str(error)) from error


def _question(request: Request, camera: str, frames: int, interval: float) -> Question:
    if frames == 1 and interval:
        raise ToolError("frame_interval is given without frames: say how many frames, 2 or more")
    return Question(
        request, camera=camera, frames=frames if frames > 1 else 0, frame_interval=interval, client="mcp"
    )


def _answer(reply: Reply, choices: Sequence[str]) -> dict[str, Any]:
    answer = reply.answer
    return {
        "answer": answer.text,
        "confidence": answer.confidence,
        "choice_probabilities": dict(zip(choices, answer.choice_probabilities, strict=False)),
        "finish_reason": answer.finish_reason,
        "camera": reply.camera,
        "stamp": _seconds(reply.stamp_ns),
        "frame_id": reply.frame_id,
        "model": reply.model,
        "seconds": reply.total,
    }


async def _heard(service: VisionService, look: Callable[[], list[T]]) -> list[T]:
    """What `look` finds, once something of it arrived since now; after HEAR_SECONDS as it is."""
    if not service.live:
        return look()
    start = time()
    async with service.watching():
        while time() - start < HEAR_SECONDS:
            found = look()
            if found and max(item.heard for item in found) >= start:
                return found
            await asyncio.sleep(0.05)
    return look()


def _with_age(item: CaptionInfo | MonitorInfo) -> dict[str, Any]:
    told = asdict(item)
    told["age"] = time() - told.pop("heard")
    return {
        name.removesuffix("_ns"): _seconds(value) if name.endswith("_ns") else value
        for name, value in told.items()
    }


def _seconds(stamp_ns: int) -> str:
    """A stamp in seconds, to the last digit: a float cannot hold it."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"
