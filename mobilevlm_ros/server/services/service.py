# SPDX-License-Identifier: Apache-2.0
"""What HTTP and MCP stand on: something that answers questions, in this process or in a running node."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.inference.types import Answer, Frame, Request

DEFAULT_TIMEOUT = 120.0
"""Seconds for an answer where the client names no other limit: a full-size model on two cores takes 10."""


class Refusal(MobileVLMError):
    """A question that cannot be answered for a reason that is neither the question's nor the engine's.

    Attributes:
        code: what happened, as one word: 'no_frame', 'stale_frame', 'unknown_camera', 'not_active',
            'node_unavailable', ...
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that came with a question.

    Attributes:
        frame: decoded.
        data: the file as it came.
        media: 'jpeg', 'png', ...: what the file is.
    """

    frame: Frame
    data: bytes
    media: str


@dataclass(frozen=True, eq=False)
class Question:
    """A question with all that belongs to it.

    Attributes:
        request: what is asked and how it is answered.
        pictures: what it is about, oldest first; none: the newest frame of `camera`.
        camera: name of a camera; empty: the default one.
        frames, frame_interval: of the camera: how many, and seconds between them, as in AskImage; 0: one.
        history: what was said before, oldest first; the client keeps it.
        session: name of a conversation that the service keeps; excludes `history`.
        timeout: seconds until RequestTimeout.
        client: who asks. Clients take turns.
    """

    request: Request
    pictures: tuple[Picture, ...] = ()
    camera: str = ""
    frames: int = 0
    frame_interval: float = 0.0
    history: tuple[Turn, ...] = ()
    session: str = ""
    timeout: float = DEFAULT_TIMEOUT
    client: str = ""


@dataclass(frozen=True)
class Reply:
    """An answer and where it comes from.

    Attributes:
        answer: text, confidence, probabilities of choices, latency split, token counts.
        model: name and content hash of the bundle.
        backend: what runs it.
        camera: name of the camera; empty for a picture that was sent.
        stamp_ns, frame_id: of the frame it is about, unchanged from its source; 0 and empty for a sent one.
        stamps_ns: of each frame, oldest first, where it is about several of a camera; else none.
        total: seconds from the arrival of the question to the answer.
    """

    answer: Answer
    model: str
    backend: str
    camera: str = ""
    stamp_ns: int = 0
    frame_id: str = ""
    stamps_ns: tuple[int, ...] = ()
    total: float = 0.0


@dataclass(frozen=True)
class CameraInfo:
    """A camera that can be asked.

    Attributes:
        name: as questions name it; empty for the node's nameless default camera.
        source: the topic, file or device it comes from.
        age: seconds since its newest frame; None: it has none yet.
    """

    name: str
    source: str
    age: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """The newest frame of a camera, encoded for people to look at.

    Attributes:
        jpeg: the file.
        width, height: of the frame, in pixels; the file's may be smaller.
        stamp_ns, frame_id: of the frame, unchanged from its source.
    """

    camera: str
    jpeg: bytes
    width: int
    height: int
    stamp_ns: int
    frame_id: str


@dataclass(frozen=True)
class CaptionInfo:
    """What a camera showed, in a sentence; fields as in mobilevlm_msgs/Caption."""

    camera: str
    text: str
    confidence: float
    stamp_ns: int
    frame_id: str
    heard: float
    """Unix time at which it arrived here, in seconds: ages are told by one clock."""


@dataclass(frozen=True)
class MonitorInfo:
    """How a standing question stands; fields as in mobilevlm_msgs/MonitorState."""

    camera: str
    name: str
    question: str
    state: str
    """'unknown', 'clear' or 'raised'."""
    probability: float | None
    threshold_up: float
    threshold_down: float
    stamp_ns: int
    since_ns: int
    status: str
    message: str
    heard: float


@dataclass(frozen=True)
class ServiceStatus:
    """Whether questions can be answered now, and by what.

    Attributes:
        ready: questions can be answered.
        reason: why not; empty when ready.
        numbers: load and speed, as far as they are known: queue_length, utilization, first_token_p50, ...
    """

    ready: bool
    model: str = ""
    backend: str = ""
    reason: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


Pieces: TypeAlias = "AsyncGenerator[str | Reply, None]"
"""An answer on its way: what is new in its text, piece by piece, and the reply as the last item."""


class VisionService(Protocol):
    """Answers questions about pictures and cameras. All methods belong to one asyncio loop."""

    @property
    def live(self) -> bool:
        """Whether it stands on a running node, with captions and monitors."""

    async def model_name(self) -> str:
        """Name of the bundle that answers, without its hash."""

    def ask(self, question: Question) -> Pieces:
        """Answer a question. Closing the generator stops the model at the next token.

        Raises (from the first step on): every MobileVLMError for which there is no answer.
        """

    async def cameras(self) -> list[CameraInfo]:
        """The cameras that can be asked. Raises Refusal where the node does not say."""

    async def look(self, camera: str, after_ns: int = -1, width: int = 0) -> Snapshot:
        """The newest frame of a camera.

        Args:
            camera: its name.
            after_ns: wait (some seconds) for a frame with another stamp than this; -1: do not.
            width: greatest width in pixels; 0: any.

        Raises Refusal ('unknown_camera', 'no_frame').
        """

    def watching(self) -> AbstractAsyncContextManager[None]:
        """While it is entered, captions and monitors are listened to (a node makes captions only then)."""

    def captions(self) -> list[CaptionInfo]:
        """The newest of each camera that was heard while somebody was watching."""

    def monitors(self) -> list[MonitorInfo]:
        """Each one's newest state that was heard while somebody was watching."""

    async def status(self) -> ServiceStatus:
        """Whether questions can be answered now. Never raises."""

    async def close(self) -> None:
        """End everything; questions on their way get RequestCancelled."""


async def reply_of(pieces: Pieces) -> Reply:
    """The reply alone; closes the generator if this is cancelled."""
    try:
        async for piece in pieces:
            if isinstance(piece, Reply):
                return piece
    finally:
        await pieces.aclose()
    raise MobileVLMError("the answer ended without a result")
