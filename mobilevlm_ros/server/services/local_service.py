# SPDX-License-Identifier: Apache-2.0
"""A bundle in this process, asked by many clients at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from time import monotonic

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import ImageError, Unsupported
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import SessionLimits, SessionStore
from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.inference.scheduler import Scheduler
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.server.services.conversations import session_of
from mobilevlm_ros.server.services.local_cameras import LocalCamera
from mobilevlm_ros.server.services.pictures import snapshot
from mobilevlm_ros.server.services.service import (
    CameraInfo,
    CaptionInfo,
    MonitorInfo,
    Question,
    Refusal,
    Reply,
    ServiceStatus,
    Snapshot,
)

FRAME_WAIT = 5.0
"""Seconds that `look` waits for a frame with another stamp."""

_POLL = 0.05


class LocalService:
    """See `VisionService`.

    Args:
        runtime: of the bundle.
        queue_size: questions that may wait; beyond it they are refused as Busy.
        prefix_budget: bytes of KV that are kept of system prompts and pictures.
        session_budget: bytes of KV that are kept of conversations.
        cameras: by name, the first is the default one; none where pictures are only sent.

    Attributes:
        runtime: as given.
    """

    live = False

    def __init__(
        self,
        runtime: Runtime,
        *,
        queue_size: int = 256,
        prefix_budget: int = 256 << 20,
        session_budget: int = 512 << 20,
        cameras: Mapping[str, LocalCamera] | None = None,
    ) -> None:
        self.runtime = runtime
        self._assistant = Assistant(runtime, prefix_budget=prefix_budget)
        self._scheduler = Scheduler(capacity=queue_size)
        context = runtime.language.max_length
        self._sessions = SessionStore(SessionLimits(64, token_budget=context, byte_budget=session_budget))
        self._cameras = dict(cameras or {})
        self._metrics = InferenceMetrics()
        manifest = runtime.bundle.manifest
        digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
        self._model = manifest.name
        self._model_id = f"{manifest.name}@{digest[:12]}"

    async def model_name(self) -> str:
        """Of the bundle."""
        return self._model

    async def ask(self, question: Question) -> AsyncGenerator[str | Reply, None]:
        """See `VisionService.ask`."""
        loop = asyncio.get_running_loop()
        arrival = monotonic()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        asked: list[Frame] = []

        def tell(piece: str | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def work() -> Generator[str, None, Answer]:
            queued = monotonic() - arrival
            session = session_of(question, self._sessions)
            frames = self._frames(question, () if session is None else session.frames)
            asked.append(frames[-1])
            answer = yield from self._assistant.steps(frames, question.request, session)
            return answer.with_queue_time(queued)

        job = self._scheduler.submit(
            work,
            priority=Priority.QUESTION,
            source=question.client,
            timeout=question.timeout,
            on_step=lambda delta: tell(delta) if delta else None,
        )
        job.future.add_done_callback(lambda _: tell(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
        finally:
            self._scheduler.cancel(job)
        try:
            answer = job.future.result()
        finally:
            del job  # it holds the error, whose traceback holds this frame and its picture
        total = monotonic() - arrival
        self._metrics.question(answer, total)
        yield Reply(
            answer,
            self._model_id,
            self.runtime.backend_name,
            camera=asked[0].camera,
            stamp_ns=asked[0].stamp_ns,
            frame_id=asked[0].frame_id,
            total=total,
        )

    async def cameras(self) -> list[CameraInfo]:
        """Those that were configured."""
        return [CameraInfo(name, camera.source, camera.age) for name, camera in self._cameras.items()]

    async def look(self, camera: str, after_ns: int = -1, width: int = 0) -> Snapshot:
        """See `VisionService.look`."""
        found = self._camera(camera)
        end = monotonic() + FRAME_WAIT
        frame = await asyncio.to_thread(found.frame)
        while frame.stamp_ns == after_ns and monotonic() < end:
            await asyncio.sleep(_POLL)
            frame = await asyncio.to_thread(found.frame)
        return await asyncio.to_thread(snapshot, frame, width)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Nothing to listen to."""
        yield

    def captions(self) -> list[CaptionInfo]:
        """None: captions are the node's."""
        return []

    def monitors(self) -> list[MonitorInfo]:
        """None: monitors are the node's."""
        return []

    async def status(self) -> ServiceStatus:
        """Always ready: without a bundle there is no service."""
        self._metrics.load(self._scheduler.busy_seconds)
        numbers: dict[str, float] = {
            "queue_length": self._scheduler.queued,
            "queue_capacity": self._scheduler.capacity,
            "sessions": len(self._sessions),
            "busy_seconds": self._scheduler.busy_seconds,
            "utilization": self._metrics.utilization,
            "first_token_p50": self._metrics.first_token(50),
            "total_p50": self._metrics.total(50),
            "encode_p50": self._metrics.encode,
            "prefill_rate": self._metrics.prefill_rate,
            "decode_rate": self._metrics.decode_rate,
        }
        return ServiceStatus(True, self._model_id, self.runtime.backend_name, numbers=numbers)

    async def close(self) -> None:
        """See `VisionService.close`."""
        await asyncio.to_thread(self._scheduler.close, 5.0)
        for camera in self._cameras.values():
            camera.close()

    def _frames(self, question: Question, before: tuple[Frame, ...]) -> tuple[Frame, ...]:
        """The pictures of a question. `before`: those of the session's question before."""
        if question.pictures:
            return tuple(picture.frame for picture in question.pictures)
        if question.frames > 1:
            raise Unsupported(
                f"frames is {question.frames}, and the cameras of this server keep their newest frame only: "
                "send the pictures, or ask a running node that keeps a history (--ros)"
            )
        if before and question.camera in ("", before[-1].camera):
            return before
        if not self._cameras and not question.camera:
            raise ImageError(
                "the request has no picture: add an image_url part with a data: URI to the user message"
            )
        return (self._camera(question.camera).frame(),)

    def _camera(self, name: str) -> LocalCamera:
        if not name and self._cameras:
            return next(iter(self._cameras.values()))
        if name not in self._cameras:
            known = ", ".join(map(repr, self._cameras)) or "none: start with --camera NAME=SOURCE or --ros"
            raise Refusal("unknown_camera", f"there is no camera {name!r}; cameras are: {known}")
        return self._cameras[name]
