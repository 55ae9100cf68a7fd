# SPDX-License-Identifier: Apache-2.0
"""Where questions arrive: the `ask_image` service and the `ask` action."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from mobilevlm_msgs.action import AskImage as AskImageAction
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rclpy.action import CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.errors import Busy, EngineError, MobileVLMError, RequestTimeout, without_frames
from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.nodes.node_state import NodeState
from mobilevlm_ros.nodes.services.ask_request import EVERY, AskRequest
from mobilevlm_ros.nodes.services.client_watch import ClientWatch
from mobilevlm_ros.nodes.services.frame_queue import FrameQueue
from mobilevlm_ros.nodes.services.messages import AskFields, AskResult, Goal
from mobilevlm_ros.nodes.services.pending_question import (
    Counts,
    Exchange,
    PendingQuestion,
    Progress,
    RequestContext,
)
from mobilevlm_ros.nodes.services.request_parser import MAX_LABEL, parse_request
from mobilevlm_ros.nodes.services.responses import fill, fill_summary
from mobilevlm_ros.ros.delivery import Redelivery
from mobilevlm_ros.ros.images.decode_pool import DecodePool

SERVICE, ACTION = "ask_image", "ask"

LONGEST_LOG = 8000
"""Characters of a traceback in the log; an error may quote what a client sent."""

SERVICE_QOS = QoSProfile(depth=256, reliability=QoSReliabilityPolicy.RELIABLE)
"""The default keeps 10 requests and silently drops the rest of a burst: its clients would wait for ever."""

DECODE_LIMIT = 10.0
"""Seconds for decoding a picture that a request carries, its wait for a free thread included."""


class AskServer:
    """Serves questions in every lifecycle state: a client gets the reason instead of waiting for a server.

    Everything runs on the executor's thread unless it says otherwise.

    Attributes:
        counts: how questions ended.
        last_latency: seconds from arrival to answer of the last answered question.
        exchanges: by camera, the last question about one of its frames and the answer.
        on_answer: called with each answer and the seconds since its request arrived.
        on_camera_answer: called with each answer about a camera: frame, question, answer, model id.
    """

    def __init__(self, node: Node, node_state: NodeState, redelivery: Redelivery) -> None:
        self._node = node
        self._node_state = node_state
        self.on_answer: Callable[[Answer, float], None] | None = None
        self.on_camera_answer: Callable[[Frame, str, Answer, str], None] | None = None
        self._contexts: dict[object, RequestContext] = {}  # by goal id, or anything unique
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._group = ReentrantCallbackGroup()  # many requests may wait at once
        self._decoding = DecodePool()
        self._frames = FrameQueue(node, self._group)
        self._clients = ClientWatch(node, SERVICE, ACTION)
        self.reset()
        self._service = node.create_service(
            AskImage, SERVICE, self._on_request, qos_profile=SERVICE_QOS, callback_group=self._group
        )
        self._action = redelivery.action_server(
            AskImageAction,
            ACTION,
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
        self.exchanges: dict[str, Exchange] = {}

    def cancel_all(self) -> None:
        """Every question on its way gets CANCELLED."""
        for context in list(self._contexts.values()):
            context.cancel()
        self._frames.look()  # those that wait for a frame go on, and see that they were cancelled

    @property
    def decoding(self) -> bool:
        """Whether a picture of a request is being decoded."""
        return not self._decoding.idle

    @property
    def busy(self) -> bool:
        """Whether a question is on its way."""
        return bool(self._contexts)

    def look_at_clients(self) -> None:
        """End the questions whose client has left; call it about once a second."""
        if self._contexts:
            self._clients.look(list(self._contexts.values()))
            self._frames.look()

    @property
    def waiting(self) -> int:
        """Questions that wait for a frame."""
        return len(self._frames)

    async def _on_request(self, request: AskImage.Request, response: AskImage.Response) -> AskImage.Response:
        await self._serve(request, response, RequestContext())
        return response

    async def _on_goal(self, goal: Goal) -> AskImageAction.Result:
        result = AskImageAction.Result()
        goal.publish_feedback(
            AskImageAction.Feedback(stage="waiting", camera=goal.request.camera[:MAX_LABEL])
        )

        def progress(pending: PendingQuestion, delta: str) -> None:  # on the inference thread
            goal.publish_feedback(
                AskImageAction.Feedback(
                    stage=pending.stage,
                    camera=pending.camera,
                    text=pending.text,
                    delta=delta,
                    generated_tokens=pending.tokens,
                )
            )

        await self._serve(goal.request, result, RequestContext(goal), progress)
        if result.status.code == Status.OK:
            goal.succeed()
        elif result.status.code == Status.CANCELLED and goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        # rclpy keeps the goal for as long as somebody may ask for its result: without the picture it carried.
        goal.request.image, goal.request.compressed_image = Image(), CompressedImage()
        return result

    def _on_cancel(self, goal: Goal) -> CancelResponse:
        context = self._contexts.get(bytes(goal.goal_id.uuid))
        if context is not None:
            context.cancel()
            self._frames.look()
        return CancelResponse.ACCEPT

    async def _serve(
        self,
        fields: AskFields,
        result: AskResult,
        context: RequestContext,
        progress: Progress | None = None,
    ) -> None:
        """Fill `result` with the answer to `fields`, or with the reason why there is none. Never raises."""
        key: object = context if context.goal is None else bytes(context.goal.goal_id.uuid)
        self._contexts[key] = context
        try:
            presets = self._node_state.require().loaded.presets
            questions = parse_request(fields, self._node, self._node_state.cameras, presets)
            if fields.camera == EVERY and questions[0].camera is not None:
                await self._answer_all(questions, result, context, progress)
            else:
                await self._answer(questions[0], result, context, progress)
        except Exception as error:  # becomes the status: without a response the client would wait for ever
            self._log(error)
            fill(result, None, error, context.arrival)
        finally:
            self._contexts.pop(key, None)
        if fields.question:  # without one it is a client that looks whether our responses reach it
            self.counts.add(result.status.code)
        if result.status.code == Status.OK:
            self.last_latency = result.latency.total

    async def _answer(
        self, question: AskRequest, result: AskResult, context: RequestContext, progress: Progress | None
    ) -> None:
        pending: PendingQuestion | None = None
        outcome: Answer | BaseException
        try:
            await self._wait([question], context)
            await self._decode(question, context)
            context.check()
            model = self._node_state.require()
            if self.waiting and self.waiting + model.scheduler.waiting(Priority.QUESTION) >= model.places:
                self._frames.make_room()
            pending = context.pending = PendingQuestion(question, model, context.arrival)
            outcome = await pending.answer(self._wake, progress)
        except Exception as error:  # becomes the status
            self._log(error)
            outcome = without_frames(error)
        finally:
            context.pending = None
        fill(result, pending, outcome, context.arrival)
        if pending is None:
            result.camera = question.label
        if isinstance(outcome, Answer):
            if question.camera is not None:
                reply = outcome.text or f"not sure: {outcome.best_guess}"
                exchange = Exchange(question.request.question, reply, outcome.confidence, monotonic())
                self.exchanges[question.camera.name] = exchange
                if self.on_camera_answer is not None and pending is not None and pending.frame is not None:
                    asked = question.request.question
                    self.on_camera_answer(pending.frame, asked, outcome, pending.loaded.model_id)
            if self.on_answer is not None:
                self.on_answer(outcome, result.latency.total)

    async def _answer_all(
        self,
        questions: Sequence[AskRequest],
        result: AskResult,
        context: RequestContext,
        progress: Progress | None,
    ) -> None:
        """Ask the cameras one after the other, those first that have a frame."""
        parts = {question: AskImage.Response() for question in questions}
        waiting = list(questions)
        while waiting:
            try:
                await self._wait(waiting, context)
            except Busy as error:
                for question in waiting:
                    fill(parts[question], None, error, context.arrival)
                    parts[question].camera = question.label
                break
            ready = (question for question in waiting if self._ready(question, context))
            question = next(ready, waiting[0])  # it may have become too old at this moment
            waiting.remove(question)
            await self._answer(question, parts[question], context, progress)
        fill_summary(result, list(parts.values()), context.arrival)

    async def _wait(self, questions: Sequence[AskRequest], context: RequestContext) -> None:
        """Until one of them is ready. Raises Busy where too many wait."""
        model = self._node_state.model
        places = 0 if model is None else model.places - model.scheduler.waiting(Priority.QUESTION)
        cameras = [question.camera for question in questions if question.camera is not None]
        ready = lambda: any(self._ready(question, context) for question in questions)  # noqa: E731
        end = context.arrival + min(question.patience for question in questions)
        await self._frames.until(ready, cameras, questions[0].source, places, end)

    async def _decode(self, question: AskRequest, context: RequestContext) -> None:
        """Decode the picture that a request carries, before its turn comes and off this thread."""
        if question.camera is not None:
            return
        decoding = self._decoding.submit(question.decode)
        end = min(context.arrival + (question.timeout or math.inf), monotonic() + DECODE_LIMIT)
        while not decoding.done() and not context.cancelled and monotonic() < end:
            over: Future = Future()
            wake = partial(self._finish, over)
            decoding.add_done_callback(wake)
            timer = self._node.create_timer(0.25, wake, self._group, clock=self._steady)
            await over
            self._node.destroy_timer(timer)
        context.check()
        if not decoding.done():
            decoding.cancel()
            raise RequestTimeout("the picture could not be decoded in time: send a smaller one")
        question.picture = decoding.result()

    def _finish(self, over: Future, _: object = None) -> None:
        if not over.done():
            over.set_result(None)
        self._wake()

    def _ready(self, question: AskRequest, context: RequestContext) -> bool:
        """Whether to go on: there is a frame that will do, or waiting for one is over."""
        model = self._node_state.model
        if model is None or self._node_state.status.code != Status.OK or context.cancelled:
            return True
        over = monotonic() - context.arrival >= question.patience
        # A frame meant by its stamp is looked for at once, so that it cannot leave the history meanwhile.
        ready = question.ready(model.loaded.sessions) if question.stamp_ns or not over else True
        return ready or over

    def _log(self, error: Exception) -> None:
        if isinstance(error, EngineError) or not isinstance(error, MobileVLMError):
            self._node.get_logger().error(f"a question failed:\n{traceback.format_exc()[-LONGEST_LOG:]}")

    def _wake(self) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.wake()
