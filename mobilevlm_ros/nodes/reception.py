# SPDX-License-Identifier: Apache-2.0
"""Where questions arrive: the `ask_image` service and the `ask` action."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
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

from mobilevlm_ros.errors import EngineError, MobileVLMError
from mobilevlm_ros.inference.types import Answer
from mobilevlm_ros.nodes.asking import Counts, Inquiry, Progress, Visit
from mobilevlm_ros.nodes.cameras import Camera
from mobilevlm_ros.nodes.conversations import Conversations
from mobilevlm_ros.nodes.model import Model
from mobilevlm_ros.nodes.question import EVERY, Question, read_questions
from mobilevlm_ros.nodes.responses import fill, fill_summary
from mobilevlm_ros.nodes.status import Refused

SERVICE_QOS = QoSProfile(depth=256, reliability=QoSReliabilityPolicy.RELIABLE)
"""The default keeps 10 requests and silently drops the rest of a burst: its clients would wait for ever."""

FRAME_POLL = 0.05
"""Seconds between looks while a request waits for a frame."""


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
        exchanges: by camera, the last question about one of its frames and the answer.
        on_answer: called with each answer and the seconds since its request arrived.
    """

    def __init__(self, node: Node, situation: Situation) -> None:
        self._node = node
        self._situation = situation
        self.on_answer: Callable[[Answer, float], None] | None = None
        self._visits: dict[object, Visit] = {}  # by goal id, or anything unique
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._group = ReentrantCallbackGroup()  # many requests may wait at once
        self._conversations = Conversations(node, situation)
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
        self.exchanges: dict[str, tuple[str, str]] = {}

    def cancel_all(self) -> None:
        """Every question on its way gets CANCELLED."""
        for visit in list(self._visits.values()):
            visit.cancel()

    @property
    def busy(self) -> bool:
        """Whether a question is on its way."""
        return bool(self._visits)

    async def _on_request(self, request: AskImage.Request, response: AskImage.Response) -> AskImage.Response:
        await self._serve(request, response, Visit())
        return response

    async def _on_goal(self, goal: Any) -> AskImageAction.Result:
        result = AskImageAction.Result()
        goal.publish_feedback(AskImageAction.Feedback(stage="waiting", camera=goal.request.camera))

        def progress(inquiry: Inquiry, piece: str) -> None:  # on the inference thread
            goal.publish_feedback(
                AskImageAction.Feedback(
                    stage=inquiry.stage,
                    camera=inquiry.camera,
                    text=inquiry.text,
                    delta=piece,
                    generated_tokens=inquiry.tokens,
                )
            )

        await self._serve(goal.request, result, Visit(goal), progress)
        if result.status.code == Status.OK:
            goal.succeed()
        elif result.status.code == Status.CANCELLED and goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return result

    def _on_cancel(self, goal: Any) -> CancelResponse:
        visit = self._visits.get(bytes(goal.goal_id.uuid))
        if visit is not None:
            visit.cancel()
        return CancelResponse.ACCEPT

    async def _serve(self, fields: Any, result: Any, visit: Visit, progress: Progress | None = None) -> None:
        """Fill `result` with the answer to `fields`, or with the reason why there is none. Never raises."""
        key: object = visit if visit.goal is None else bytes(visit.goal.goal_id.uuid)
        self._visits[key] = visit
        try:
            presets = self._situation.require().loaded.presets
            questions = read_questions(fields, self._node, self._situation.cameras, presets)
            if fields.camera == EVERY and questions[0].camera is not None:
                await self._answer_all(questions, result, visit, progress)
            else:
                await self._answer(questions[0], result, visit, progress)
        except Exception as error:  # becomes the status: without a response the client would wait for ever
            self._log(error)
            fill(result, None, error, visit.arrival)
        finally:
            self._visits.pop(key, None)
        if fields.question:  # without one it is a client that looks whether our responses reach it
            self.counts.add(result.status.code)
        if result.status.code == Status.OK:
            self.last_latency = result.latency.total

    async def _answer(self, question: Question, result: Any, visit: Visit, progress: Progress | None) -> None:
        while not self._ready(question, visit):
            await self._pause(FRAME_POLL)
        inquiry: Inquiry | None = None
        outcome: Answer | BaseException
        try:
            model = self._situation.require()
            visit.check()
            inquiry = visit.inquiry = Inquiry(question, model, visit.arrival)
            outcome = await inquiry.answer(self._wake, progress)
        except Exception as error:  # becomes the status
            outcome = error
            self._log(error)
        finally:
            visit.inquiry = None
        fill(result, inquiry, outcome, visit.arrival)
        if inquiry is None:
            result.camera = question.label
        if isinstance(outcome, Answer):
            if question.camera is not None:
                reply = outcome.text or f"not sure: {outcome.best_guess}"
                self.exchanges[question.camera.name] = (question.request.question, reply)
            if self.on_answer is not None:
                self.on_answer(outcome, result.latency.total)

    async def _answer_all(
        self, questions: Sequence[Question], result: Any, visit: Visit, progress: Progress | None
    ) -> None:
        """Ask the cameras one after the other, those first that have a frame."""
        parts = {question: AskImage.Response() for question in questions}
        waiting = list(questions)
        while waiting:
            question = next((question for question in waiting if self._ready(question, visit)), None)
            if question is None:
                await self._pause(FRAME_POLL)
            else:
                waiting.remove(question)
                await self._answer(question, parts[question], visit, progress)
        fill_summary(result, list(parts.values()), visit.arrival)

    def _ready(self, question: Question, visit: Visit) -> bool:
        """Whether to go on: there is a frame that will do, or waiting for one is over."""
        model = self._situation.model
        if model is None or self._situation.status.code != Status.OK or visit.cancelled:
            return True
        limit = question.wait_for_frame
        if question.timeout is not None:
            limit = min(limit, question.timeout)
        over = monotonic() - visit.arrival >= limit
        if not over and question.camera is not None:
            question.camera.refresh()
        # A frame meant by its stamp is looked for at once, so that it cannot leave the history meanwhile.
        ready = question.ready(model.loaded.sessions) if question.stamp_ns or not over else True
        return ready or over

    def _log(self, error: Exception) -> None:
        if isinstance(error, EngineError) or not isinstance(error, MobileVLMError):
            self._node.get_logger().error(f"a question failed:\n{traceback.format_exc()}")

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
