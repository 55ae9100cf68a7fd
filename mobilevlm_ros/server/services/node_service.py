# SPDX-License-Identifier: Apache-2.0
"""A running node, asked through its action and listened to through its topics."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator
from time import monotonic
from typing import Any

from mobilevlm_msgs.msg import MonitorState, Status
from sensor_msgs.msg import CompressedImage, RegionOfInterest

from mobilevlm_ros.client.async_client import AsyncAskImageClient
from mobilevlm_ros.client.memory import matches_of, request_of
from mobilevlm_ros.client.watcher import NodeWatcher
from mobilevlm_ros.errors import NodeGone, RequestTimeout, Unsupported
from mobilevlm_ros.inference.types import Answer, Latency, TokenLogprob
from mobilevlm_ros.memory.record import Match, Query
from mobilevlm_ros.ros.images.messages import octets
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import name_of
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

NODE_WAIT = 8.0
"""Seconds in which a node must be found. Discovery takes about one; on a busy robot several."""

SHORT_WAIT = 0.2
"""Seconds for the same once this process has been in the graph for longer than NODE_WAIT."""

FRAME_WAIT = 5.0
"""Seconds that a question or a look waits for a frame."""

NO_ID = -1
"""Stands for the id of a token that is known by its text only."""

_NUMBERS = (
    "queue_length", "queue_capacity", "sessions", "questions_answered", "questions_refused", "questions_busy",
    "questions_timed_out", "questions_cancelled", "captions", "monitor_evaluations", "first_token_p50",
    "first_token_p95", "total_p50", "total_p95", "encode_p50", "prefill_rate", "decode_rate", "utilization",
    "memory_resident", "memory_device", "temperature",
)  # fmt: skip
_STATES = {MonitorState.UNKNOWN: "unknown", MonitorState.CLEAR: "clear", MonitorState.RAISED: "raised"}


class NodeService:
    """See `VisionService`.

    Args:
        namespace: of the node; empty: the root.
        node: its name.
    """

    live = True

    def __init__(self, namespace: str = "", node: str = "mobilevlm") -> None:
        prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
        self._client = AsyncAskImageClient(f"{prefix}ask")
        self._node = node
        self._began = monotonic()
        self._watcher = NodeWatcher(f"{prefix}{node}")

    async def model_name(self) -> str:
        """Name of the bundle that the node serves. Raises Refusal."""
        return str((await self._metrics()).model_id).partition("@")[0]

    async def ask(self, question: Question) -> AsyncGenerator[str | Reply, None]:
        """See `VisionService.ask`."""
        arrival = monotonic()
        await self._metrics()
        if not await self._client.wait_for_node(NODE_WAIT):
            raise Refusal("node_unavailable", str(self._client.missing(NODE_WAIT)))
        stream = self._client.stream(
            question.request.question,
            camera=question.camera,
            choices=question.request.choices,
            timeout=question.timeout,
            **_fields(question),
        )
        growing = stream.__aiter__()
        try:
            async for piece in growing:
                if question.camera != "*":  # several answers grow at once there
                    yield piece
        except NodeGone as error:
            raise Refusal("node_unavailable", str(error)) from error
        finally:
            await growing.aclose()  # type: ignore[attr-defined]
        yield _reply(stream.result, monotonic() - arrival)

    async def cameras(self) -> list[CameraInfo]:
        """As the node's metrics list them."""
        heard = await self._metrics()
        return [
            CameraInfo(c.camera, c.topic, None if math.isnan(c.frame_age) else float(c.frame_age))
            for c in heard.cameras
        ]

    async def look(self, camera: str, after_ns: int = -1, width: int = 0) -> Snapshot:
        """See `VisionService.look`."""
        topics = {c.camera: c.topic for c in (await self._metrics()).cameras}
        name = camera if camera or "" in topics else next(iter(topics), "")
        if name not in topics:
            known = ", ".join(map(repr, topics)) or "none"
            raise Refusal("unknown_camera", f"there is no camera {camera!r}; cameras are: {known}")

        def newest() -> Snapshot:
            frame = self._watcher.frame(topics[name], after_ns, FRAME_WAIT)
            return snapshot(frame, width, camera=name)

        try:
            return await asyncio.to_thread(newest)
        except RequestTimeout as error:
            raise Refusal("no_frame", str(error)) from error

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """See `VisionService.watching`."""
        with self._watcher.watching():
            yield

    def captions(self) -> list[CaptionInfo]:
        """See `VisionService.captions`."""
        return [
            CaptionInfo(
                heard.message.camera,
                heard.message.text,
                heard.message.confidence,
                to_nanoseconds(heard.message.header.stamp),
                heard.message.header.frame_id,
                heard.at,
            )
            for heard in self._watcher.captions
        ]

    def monitors(self) -> list[MonitorInfo]:
        """See `VisionService.monitors`."""
        return [_monitor(heard.message, heard.at) for heard in self._watcher.monitors]

    async def status(self) -> ServiceStatus:
        """See `VisionService.status`."""
        try:
            heard = await self._metrics()
        except Refusal as error:
            return ServiceStatus(False, reason=str(error))
        numbers = {name: float(getattr(heard, name)) for name in _NUMBERS if hasattr(heard, name)}
        return ServiceStatus(True, heard.model_id, heard.backend, numbers=numbers)

    async def search_memory(self, query: Query) -> list[Match]:
        """What the node remembers. Raises MobileVLMError, with the node's reason where it cannot tell."""
        response = await self._client.search_memory_of(request_of(query), self._node, NODE_WAIT)
        return matches_of(response)

    async def close(self) -> None:
        """Leave the ROS graph."""
        await asyncio.to_thread(self._client.close)
        await asyncio.to_thread(self._watcher.close)

    async def _metrics(self) -> Any:
        """The node's newest metrics. Raises Refusal ('node_unavailable') where it tells none."""

        def heard() -> bool:
            return not self._watcher.silent

        wait = max(SHORT_WAIT, NODE_WAIT - (monotonic() - self._began))  # the graph is known after that
        if not heard() and not await asyncio.to_thread(self._watcher.wait_for, heard, wait):
            raise Refusal(
                "node_unavailable",
                f"nothing was heard on {self._watcher.topic}: start mobilevlm_node, see that it is active, "
                "and check --namespace, --node and ROS_DOMAIN_ID",
            )
        assert self._watcher.metrics is not None
        return self._watcher.metrics.message


def _fields(question: Question) -> dict[str, Any]:
    """The other fields of the action's goal."""
    request, sampling, form = question.request, question.request.sampling, question.request.answer_format
    if len(question.pictures) > 1:
        raise Unsupported(
            f"{len(question.pictures)} pictures were sent, and a running node takes one in a question: ask a "
            "bundle (without --ros), or about several frames of a camera (the field frames)"
        )
    fields: dict[str, Any] = {
        "session": question.session,
        "history": [text for turn in question.history for text in (turn.question, turn.answer)],
        "frames": question.frames,
        "frame_interval": question.frame_interval,
        "system_prompt": request.system_prompt,
        "abstain_threshold": request.abstain_threshold,
        "answer_format": form.kind,
        "minimum": form.minimum,
        "maximum": form.maximum,
        "json_schema": form.json_schema,
        "pattern": form.pattern,
        "grammar": form.grammar,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "repetition_penalty": sampling.repetition_penalty,
        "stop": list(sampling.stop),
        "logprobs": sampling.logprobs and not request.choices,
        "top_logprobs": 0 if request.choices else sampling.top_logprobs,
        "wait_for_frame": min(FRAME_WAIT, question.timeout),
    }
    if request.region is not None:
        part = request.region
        fields["roi"] = RegionOfInterest(
            x_offset=part.x, y_offset=part.y, width=part.width, height=part.height
        )
        fields["roi_with_frame"] = request.region_with_frame
    for picture in question.pictures:
        sent = CompressedImage(format=picture.media)
        sent.data = octets(picture.data)
        fields["image"] = sent
    return fields


def _reply(result: Any, total: float) -> Reply:
    """The reply of an action's result. Raises Refusal where its status is another than OK."""
    if result.status.code != Status.OK:
        raise Refusal(name_of(result.status.code).lower(), result.status.message)
    latency = Latency(
        result.latency.queue, result.latency.encode, result.latency.prefill, result.latency.decode
    )
    answer = Answer(
        text=result.answer,
        confidence=result.confidence,
        choice_probabilities=tuple(map(float, result.choice_probabilities)),
        latency=latency,
        prompt_tokens=result.prompt_tokens,
        reused_tokens=result.cached_tokens,
        generated_tokens=result.generated_tokens,
        finish_reason=result.finish_reason,
        abstained=result.abstained,
        calibrated=result.calibrated,
        session_turn=result.session_turn,
        logprobs=tuple(map(_token, result.logprobs)),
        choices=tuple(result.choices),
    )
    return Reply(
        answer,
        result.model_id,
        result.backend,
        camera=result.camera,
        stamp_ns=to_nanoseconds(result.header.stamp),
        frame_id=result.header.frame_id,
        stamps_ns=tuple(to_nanoseconds(header.stamp) for header in result.frame_headers),
        total=total,
    )


def _token(told: Any) -> TokenLogprob:
    """A token's log-probability; a node does not tell ids."""
    top = zip(told.top_texts, told.top_logprobs, strict=True)
    others = tuple(TokenLogprob(NO_ID, text, text.encode(), logprob) for text, logprob in top)
    return TokenLogprob(NO_ID, told.text, bytes(told.content), told.logprob, others)


def _monitor(state: MonitorState, heard: float) -> MonitorInfo:
    return MonitorInfo(
        camera=state.camera,
        name=state.name,
        question=state.question,
        state=_STATES.get(state.state, "unknown"),
        probability=None if math.isnan(state.probability) else float(state.probability),
        threshold_up=state.threshold_up,
        threshold_down=state.threshold_down,
        stamp_ns=to_nanoseconds(state.header.stamp),
        since_ns=to_nanoseconds(state.since),
        status=name_of(state.status.code),
        message=state.status.message,
        heard=heard,
    )
