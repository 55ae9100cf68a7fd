# SPDX-License-Identifier: Apache-2.0
"""Where questions arrive: the `ask_image` service and the `ask` action."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from mobilevlm_msgs.action import AskImage as AskImageAction
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.task import Future

from mobilevlm_ros.errors import EngineError, MobileVLMError, RequestCancelled
from mobilevlm_ros.inference.types import Answer
from mobilevlm_ros.nodes.asking import Counts, Inquiry, fill
from mobilevlm_ros.nodes.cameras import Camera
from mobilevlm_ros.nodes.model import Model
from mobilevlm_ros.nodes.question import Question, read_question
from mobilevlm_ros.nodes.status import Refused

SERVICE_QOS = QoSProfile(depth=256, reliability=QoSReliabilityPolicy.RELIABLE)
"""The default keeps 10 requests and silently drops the rest of a burst: its clients would wait for ever."""

FRAME_POLL = 0.05
"""Seconds between looks while a request waits for a frame."""

Progress = Callable[[Inquiry, str], None]


@dataclass
class Situation:
    """What the node can do right now; the node changes it, the reception reads it.

    Attributes:
        status: OK while the node is active, else why it is not.
        model: None before configure and after cleanup.
        cameras: by name, the default one first; empty unless active.
    """

    status: Status
    model: Model | None = None
    cameras: Mapping[str, Camera] = field(default_factory=dict)

    def require(self) -> Model:
        """The model; raises Refused with the reason when the node is not active."""
        if self.status.code != Status.OK or self.model is None:
            raise Refused(self.status.code, self.status.message)
        return self.model


class Reception:
    """Serves questions in every lifecycle state: a client gets the reason instead of waiting for a server.

    Everything runs on the executor's thread unless it says otherwise.

    Attributes:
        counts: how questions ended.
        last_latency: seconds from arrival to answer of the last answered question.
        latest_exchange: the last question and its answer.
    """

    def __init__(self, node: Node, situation: Situation) -> None:
        self._node = node
        self._situation = situation
        self._inquiries: dict[object, Inquiry] = {}  # by goal id, or anything unique
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._group = ReentrantCallbackGroup()  # many requests may wait at once
        self.reset()
        self._service = node.create_service(
            AskImage, "ask_image", self._on_request, qos_profile=SERVICE_QOS, callback_group=self._group
        )
        self._action = ActionServer(
            node,
            AskImageAction,
            "ask",
            execute_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=self._group,
            goal_service_qos_profile=SERVICE_QOS,
            result_service_qos_profile=SERVICE_QOS,
            cancel_service_qos_profile=SERVICE_QOS,
        )

    def reset(self) -> None:
        """Begin to count again."""
        self.counts = Counts()
        self.last_latency: float | None = None
        self.latest_exchange: tuple[str, str] | None = None

    def cancel_all(self) -> None:
        """Every question on its way gets CANCELLED."""
        for inquiry in list(self._inquiries.values()):
            inquiry.cancel()

    async def _on_request(self, request: AskImage.Request, response: AskImage.Response) -> AskImage.Response:
        await self._serve(request, response)
        return response

    async def _on_goal(self, goal: Any) -> AskImageAction.Result:
        result = AskImageAction.Result()
        feedback = AskImageAction.Feedback(stage="waiting", camera=goal.request.camera)
        goal.publish_feedback(feedback)

        def progress(inquiry: Inquiry, piece: str) -> None:  # on the inference thread
            feedback.stage = "answering" if inquiry.text else "reading"
            feedback.camera = inquiry.question.label
            feedback.text, feedback.delta = inquiry.text, piece
            feedback.generated_tokens = inquiry.tokens
            goal.publish_feedback(feedback)

        await self._serve(goal.request, result, goal, progress)
        if goal.is_cancel_requested:
            goal.canceled()
        elif result.status.code == Status.OK:
            goal.succeed()
        else:
            goal.abort()
        return result

    def _on_cancel(self, goal: Any) -> CancelResponse:
        inquiry = self._inquiries.get(bytes(goal.goal_id.uuid))
        if inquiry is not None:
            inquiry.cancel()
        return CancelResponse.ACCEPT

    async def _serve(
        self, fields: Any, result: Any, goal: Any = None, progress: Progress | None = None
    ) -> None:
        """Fill `result` with the answer to `fields`, or with the reason why there is none. Never raises."""
        arrival = monotonic()
        inquiry: Inquiry | None = None
        key: object = object() if goal is None else bytes(goal.goal_id.uuid)
        try:
            self._situation.require()
            question = read_question(fields, self._node, self._situation.cameras)
            await self._wait_for_frame(question, arrival, goal)
            if goal is not None and goal.is_cancel_requested:
                raise RequestCancelled("the request was cancelled before its turn came")
            inquiry = self._inquiries[key] = Inquiry(question, self._situation.require(), arrival)
            outcome: Answer | BaseException = await inquiry.answer(self._wake, progress)
        except Exception as error:  # becomes the status
            outcome = error
            if isinstance(error, EngineError) or not isinstance(error, MobileVLMError):
                self._node.get_logger().error(f"a question failed:\n{traceback.format_exc()}")
        finally:
            self._inquiries.pop(key, None)
        fill(result, inquiry, outcome, arrival)
        self.counts.add(result.status.code)
        if result.status.code == Status.OK:
            self.last_latency = result.latency.total
            self.latest_exchange = (fields.question, result.answer)

    async def _wait_for_frame(self, question: Question, arrival: float, goal: Any) -> None:
        """Let up to `wait_for_frame` seconds pass until the camera has a frame that is fresh enough."""
        camera = question.camera
        limit = question.wait_for_frame
        if question.timeout is not None:
            limit = min(limit, question.timeout)
        while camera is not None and monotonic() - arrival < limit:
            self._situation.require()
            camera.refresh()
            age = camera.age()
            if age is not None and (question.max_age < 0 or age <= question.max_age):
                return
            if goal is not None and goal.is_cancel_requested:
                return
            await self._pause(FRAME_POLL)

    async def _pause(self, seconds: float) -> None:
        over: Future = Future()
        timer = self._node.create_timer(
            seconds, lambda: over.set_result(None), self._group, clock=self._steady
        )
        await over
        self._node.destroy_timer(timer)

    def _wake(self) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.wake()
