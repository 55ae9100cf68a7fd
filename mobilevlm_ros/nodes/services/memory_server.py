# SPDX-License-Identifier: Apache-2.0
"""The `~/search_memory` service, and what goes into the node's memory."""

from __future__ import annotations

import os
import traceback
from concurrent.futures import Future as ThreadFuture
from pathlib import Path
from time import time_ns
from typing import Any

from mobilevlm_msgs.msg import MemoryMatch, Status
from mobilevlm_msgs.srv import SearchMemory
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from mobilevlm_ros.errors import ConfigurationError, MobileVLMError
from mobilevlm_ros.files.small_file import expanded
from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.memory.record import ANSWER, CAPTION, MONITOR, Match, Query, Record
from mobilevlm_ros.memory.vectors import make_vectors
from mobilevlm_ros.nodes.model_manager import LoadedBundle, ModelManager
from mobilevlm_ros.nodes.node_memory import Found, Limits, NodeMemory
from mobilevlm_ros.nodes.node_state import NodeState
from mobilevlm_ros.nodes.odometry import Odometry
from mobilevlm_ros.nodes.services.ask_server import SERVICE_QOS
from mobilevlm_ros.ros.images.messages import octets
from mobilevlm_ros.ros.stamps import to_message, to_nanoseconds
from mobilevlm_ros.ros.status import Refused, status_of

MOST_SEARCHES = 32
"""That may wait; more get BUSY."""

DEFAULT_LIMIT = 5

_OFF = "the node remembers nothing: start it with the parameter memory.enabled:=true"


class MemoryServer:
    """Serves `~/search_memory` in every lifecycle state. Everything runs on the executor's thread, but for
    `caption`, `monitor` and `answer`, which any thread may call.

    Attributes:
        memory: what is remembered; None while the node is not configured, or remembers nothing.
        odometry: where the robot is; None where the parameters name no topic.
    """

    def __init__(self, node: Node, node_state: NodeState) -> None:
        self._node = node
        self._node_state = node_state
        self._searching = 0
        self._vectors_of: LoadedBundle | None = None
        self.memory: NodeMemory | None = None
        self.odometry: Odometry | None = None
        self._service = node.create_service(
            SearchMemory,
            "~/search_memory",
            self._on_request,
            qos_profile=SERVICE_QOS,
            callback_group=ReentrantCallbackGroup(),
        )

    @property
    def listeners(self) -> int:
        """How many want captions: the memory, where it is on."""
        return int(self.memory is not None)

    def open(self) -> None:
        """Begin to remember, where the parameters say so. Raises MemoryFileError and ConfigurationError."""
        value = {name: self._node.get_parameter(f"memory.{name}").value for name in _PARAMETERS}
        if not value["enabled"]:
            return
        limits = Limits(value["max_mb"] << 20, value["max_age"], value["thumbnails"])
        path = Path(expanded(value["file"])) if value["file"] else self._default_file()
        log = self._node.get_logger()
        self.memory = NodeMemory(path, limits, lambda text: log.error(text, throttle_duration_sec=10.0))
        if value["odometry"]:
            self.odometry = Odometry(self._node, value["odometry"])
        log.info(f"remembers in {path}")

    def close(self) -> None:
        """Remember nothing more; what there is is written."""
        memory, self.memory, self._vectors_of = self.memory, None, None
        if self.odometry is not None:
            self.odometry.close()
            self.odometry = None
        if memory is not None:
            memory.close()

    def tick(self, model: ModelManager) -> None:
        """Look for the robot's positions, and have the model that answers now make the vectors; call it often
        (it costs next to nothing).
        """
        if self.odometry is not None:
            self.odometry.look()
        memory, loaded = self.memory, model.loaded
        known = self._vectors_of
        if memory is None or (known is not None and known.runtime is loaded.runtime):
            return
        self._vectors_of = loaded

        def made(future: Any) -> None:  # on the inference thread
            if future.exception() is None:
                memory.use(future.result())

        try:
            job = model.scheduler.submit(
                lambda: make_vectors(loaded.runtime), priority=Priority.CAPTION, source="memory"
            )
        except MobileVLMError:
            self._vectors_of = known  # the queue is full: at the next tick
            return
        job.future.add_done_callback(made)

    def caption(self, frame: Frame, answer: Answer, model_id: str) -> None:
        """Remember a caption."""
        self._remember(CAPTION, frame, answer.text, "", answer.confidence, model_id)

    def monitor(
        self, frame: Frame, name: str, question: str, raised: bool, sure: float, model_id: str
    ) -> None:
        """Remember that a monitor was raised or cleared; `sure`: how probable its new state is."""
        self._remember(MONITOR, frame, f"{name}: {'raised' if raised else 'clear'}", question, sure, model_id)

    def answer(self, frame: Frame, question: str, answer: Answer, model_id: str) -> None:
        """Remember an answer to somebody's question about a camera, where the parameters say so."""
        if answer.text and self._node.get_parameter("memory.answers").value:
            self._remember(ANSWER, frame, answer.text, question, answer.confidence, model_id)

    def _remember(
        self, kind: str, frame: Frame, text: str, question: str, confidence: float, model_id: str
    ) -> None:
        memory, odometry = self.memory, self.odometry
        if memory is None:
            return
        # A camera that fills no stamps has only the time of our clock.
        stamp_ns = frame.stamp_ns or int(self._node.get_clock().now().nanoseconds) or time_ns()
        record = Record(
            stamp_ns,
            frame.camera,
            kind,
            text.strip(),
            question,
            confidence,
            model_id,
            frame.frame_id,
            position=None if odometry is None else odometry.at(stamp_ns),
        )
        memory.remember(record, frame.image)

    def _default_file(self) -> Path:
        home = Path(os.environ.get("ROS_HOME") or Path.home() / ".ros")
        path = home / "mobilevlm" / f"{self._node.get_fully_qualified_name().strip('/').replace('/', '.')}.db"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"memory.file: {path.parent} cannot be made ({error.strerror}): name another file"
            ) from error
        return path

    async def _on_request(
        self, request: SearchMemory.Request, response: SearchMemory.Response
    ) -> SearchMemory.Response:
        try:
            found = await self._search(_query(request))
            response.matches = [_message(match, request.thumbnails) for match in found.matches]
            response.remembered = found.remembered
            response.oldest = to_message(found.oldest_ns)
            response.status = Status(code=Status.OK)
        except Exception as error:  # becomes the status: without a response the client would wait for ever
            response.status = status_of(error)
            if not isinstance(error, MobileVLMError):
                self._node.get_logger().error(f"a search failed:\n{traceback.format_exc()}")
        return response

    async def _search(self, query: Query) -> Found:
        memory = self.memory
        if memory is None:
            if self._node.get_parameter("memory.enabled").value:
                raise Refused(Status.NOT_ACTIVE, self._node_state.status.message or _OFF)
            raise Refused(Status.UNSUPPORTED, _OFF)
        if self._searching >= MOST_SEARCHES:
            raise Refused(Status.BUSY, f"{MOST_SEARCHES} searches wait already: search again later")
        self._searching += 1
        try:
            done: Future = Future()

            def finished(_: ThreadFuture[Found]) -> None:
                done.set_result(None)
                executor = self._node.executor
                if executor is not None:
                    executor.wake()  # one that waits does not look at futures by itself

            searching = memory.search(query)
            searching.add_done_callback(finished)
            await done
            if searching.cancelled():
                raise Refused(Status.CANCELLED, "the node was cleaned up: search again when it is active")
            return searching.result()
        finally:
            self._searching -= 1


def _query(request: SearchMemory.Request) -> Query:
    return Query(
        text=request.text,
        camera=request.camera,
        kind=request.kind,
        start_ns=to_nanoseconds(request.start_time),
        end_ns=to_nanoseconds(request.end_time),
        x=request.x,
        y=request.y,
        radius=request.radius,
        limit=request.limit or DEFAULT_LIMIT,
        thumbnails=request.thumbnails,
    )


def _message(match: Match, thumbnails: bool) -> MemoryMatch:
    record = match.record
    header = Header(stamp=to_message(record.stamp_ns), frame_id=record.frame_id)
    message = MemoryMatch(
        header=header,
        camera=record.camera,
        kind=record.kind,
        text=record.shown,
        confidence=record.confidence,
        score=match.score,
    )
    if record.position is not None:
        place = record.position
        message.position_frame, message.x, message.y, message.z = place.frame, place.x, place.y, place.z
    if thumbnails and record.thumbnail:
        message.thumbnail = CompressedImage(header=header, format="jpeg")
        message.thumbnail.data = octets(record.thumbnail)
    return message


_PARAMETERS = ("enabled", "file", "max_mb", "max_age", "thumbnails", "odometry")
