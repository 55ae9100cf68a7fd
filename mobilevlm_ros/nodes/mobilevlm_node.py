# SPDX-License-Identifier: Apache-2.0
"""The node: a lifecycle node that answers questions about its cameras and captions what they show."""

from __future__ import annotations

import sys
import traceback
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from mobilevlm_msgs.action import AskImage as AskImageAction
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.task import Future

from mobilevlm_ros.errors import EngineError, MobileVLMError, RequestCancelled
from mobilevlm_ros.inference.types import Answer
from mobilevlm_ros.nodes import diagnostics, parameters, running
from mobilevlm_ros.nodes.asking import Counts, Inquiry, fill
from mobilevlm_ros.nodes.cameras import Camera
from mobilevlm_ros.nodes.captions import Captioner
from mobilevlm_ros.nodes.model import Model, load_model
from mobilevlm_ros.nodes.question import Question, read_question
from mobilevlm_ros.nodes.status import Refused, status_of

REFRESH_PERIOD = 0.5
"""Seconds between looks at the cameras' topics: who publishes, and how old the newest frame is."""

CAPTION_TICK = 0.05
FRAME_POLL = 0.05
"""Seconds between looks while a request waits for a frame."""

SERVICE_QOS = QoSProfile(depth=256, reliability=QoSReliabilityPolicy.RELIABLE)
"""The default keeps 10 requests and silently drops the rest of a burst: its clients would wait for ever."""

_UNCONFIGURED = "the node is not configured yet: run `ros2 lifecycle set <node> configure`, then activate"
_INACTIVE = "the node is not active: run `ros2 lifecycle set <node> activate`"


class MobileVLMNode(LifecycleNode):
    """See README for topics, services and parameters. Everything here runs on the executor's thread."""

    def __init__(self, name: str = "mobilevlm") -> None:
        super().__init__(name)
        self._standing = Status(code=Status.NOT_ACTIVE, message=_UNCONFIGURED)  # OK while active
        self._model: Model | None = None
        self._cameras: dict[str, Camera] = {}
        self._captioner: Captioner | None = None
        self._inquiries: dict[bytes, Inquiry] = {}
        self._counts = Counts()
        self._last_latency: float | None = None
        self._pulses: list[Any] = []  # timers that run while the node is active
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._group = ReentrantCallbackGroup()  # many requests may wait at once
        parameters.declare(self, lambda: self._model is None)
        # Services exist in every state: a client gets the reason instead of waiting for a server.
        self._service = self.create_service(
            AskImage, "ask_image", self._on_ask, qos_profile=SERVICE_QOS, callback_group=self._group
        )
        self._action = ActionServer(
            self,
            AskImageAction,
            "ask",
            execute_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=self._group,
            goal_service_qos_profile=SERVICE_QOS,
            result_service_qos_profile=SERVICE_QOS,
            cancel_service_qos_profile=SERVICE_QOS,
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        period = self.get_parameter("diagnostics_period").value
        self.create_timer(period, self._publish_diagnostics, clock=self._steady)
        if self.get_parameter("autostart").value:
            self.trigger_configure()
            if self._model is not None:
                self.trigger_activate()

    # ---- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle; on failure stay unconfigured with the reason in the log and in every status."""
        wrong = parameters.problems(self)
        try:
            if wrong:
                raise Refused(Status.NOT_ACTIVE, "; ".join(wrong))
            self._model = load_model(self)
        except Exception as error:
            self._standing = status_of(error)
            detail = "" if isinstance(error, MobileVLMError) else f"\n{traceback.format_exc()}"
            self.get_logger().error(f"cannot be configured: {error}{detail}")
            return TransitionCallbackReturn.FAILURE
        self._counts, self._last_latency = Counts(), None
        self._captioner = Captioner(self, self._model)
        self._standing = Status(code=Status.NOT_ACTIVE, message=_INACTIVE)
        runtime = self._model.runtime
        self.get_logger().info(
            f"loaded {self._model.model_id} in {self._model.load_seconds:.1f} s on {runtime.backend_name} "
            f"({runtime.reason})"
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the cameras and answer."""
        reliable = self.get_parameter("reliability").value == "reliable"
        transport = self.get_parameter("transport").value
        self._cameras = {
            name: Camera(self, name, transport, reliable) for name in self.get_parameter("cameras").value
        }
        self._refresh_cameras()
        if self._captioner is not None:
            self._captioner.start(self._cameras)
            self._pulses.append(self.create_timer(CAPTION_TICK, self._captioner.tick, clock=self._steady))
        self._pulses.append(self.create_timer(REFRESH_PERIOD, self._refresh_cameras, clock=self._steady))
        self._standing = Status(code=Status.OK)
        self.get_logger().info("active: ask on " + self.resolve_service_name("ask_image"))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and captioning; the model stays loaded. Questions on their way get CANCELLED."""
        self._standing = Status(code=Status.NOT_ACTIVE, message=_INACTIVE)
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._standing = Status(code=Status.NOT_ACTIVE, message=_UNCONFIGURED)
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node cannot be configured again."""
        self._standing = Status(code=Status.NOT_ACTIVE, message="the node was shut down: start it again")
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed on the way: free everything, so that the node can be configured again."""
        self._standing = Status(
            code=Status.INTERNAL_ERROR, message="a lifecycle transition failed: configure again"
        )
        self.get_logger().error("a lifecycle transition failed; the node is unconfigured now")
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def close(self, timeout: float) -> bool:
        """Before the process ends: True if the inference thread ended within `timeout` seconds."""
        self._stop()
        return self._model.close(timeout) if self._model is not None else True

    def _stop(self) -> None:
        for timer in self._pulses:
            self.destroy_timer(timer)
        self._pulses = []
        if self._captioner is not None:
            self._captioner.stop()
        for inquiry in list(self._inquiries.values()):
            inquiry.cancel()
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {}

    def _free(self) -> None:
        self._stop()
        if self._captioner is not None:
            self._captioner.close()
            self._captioner = None
        if self._model is not None:
            self._model.close()
            self._model = None

    # ---- questions

    async def _on_ask(self, request: AskImage.Request, response: AskImage.Response) -> AskImage.Response:
        await self._serve(request, response)
        return response

    async def _on_goal(self, goal: Any) -> AskImageAction.Result:
        result = AskImageAction.Result()
        feedback = AskImageAction.Feedback(stage="waiting", camera=goal.request.camera)
        goal.publish_feedback(feedback)

        def progress(inquiry: Inquiry, piece: str) -> None:
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

    async def _serve(self, fields: Any, result: Any, goal: Any = None, progress: Any = None) -> None:
        """Fill `result` with the answer to `fields`, or with the reason why there is none. Never raises."""
        arrival = monotonic()
        inquiry: Inquiry | None = None
        key = bytes(goal.goal_id.uuid) if goal is not None else arrival.hex().encode()
        try:
            if self._standing.code != Status.OK or self._model is None:
                raise Refused(self._standing.code, self._standing.message)
            question = read_question(fields, self, self._cameras)
            await self._wait_for_frame(question, arrival, goal)
            inquiry = self._inquiries[key] = Inquiry(question, self._model, arrival)
            outcome: Answer | BaseException = await inquiry.answer(self._wake, progress)
        except Exception as error:  # becomes the status
            outcome = error
            if not isinstance(error, MobileVLMError):
                self.get_logger().error(f"a question failed:\n{traceback.format_exc()}")
        finally:
            self._inquiries.pop(key, None)
        fill(result, inquiry, outcome, arrival)
        self._counts.add(result.status.code)
        if result.status.code == Status.OK:
            self._last_latency = result.latency.total
            if self._captioner is not None:
                self._captioner.latest_exchange = (fields.question, result.answer)
        elif isinstance(outcome, EngineError):
            self.get_logger().error(str(outcome))

    async def _wait_for_frame(self, question: Question, arrival: float, goal: Any) -> None:
        """Let up to `wait_for_frame` seconds pass until the camera has a frame that is fresh enough."""
        camera = question.camera
        limit = question.wait_for_frame
        if question.timeout is not None:
            limit = min(limit, question.timeout)
        while camera is not None and monotonic() - arrival < limit:
            if goal is not None and goal.is_cancel_requested:
                raise RequestCancelled("the request was cancelled while it waited for a frame")
            if self._standing.code != Status.OK:
                raise Refused(self._standing.code, self._standing.message)
            camera.refresh()
            age = camera.age()
            if age is not None and (question.max_age < 0 or age <= question.max_age):
                return
            await self._pause(FRAME_POLL)

    async def _pause(self, seconds: float) -> None:
        over: Future = Future()
        timer = self.create_timer(seconds, lambda: over.set_result(None), self._group, clock=self._steady)
        await over
        self.destroy_timer(timer)

    def _wake(self) -> None:
        executor = self.executor
        if executor is not None:
            executor.wake()

    # ---- housekeeping

    def _refresh_cameras(self) -> None:
        for camera in self._cameras.values():
            camera.refresh()

    def _publish_diagnostics(self) -> None:
        self._diagnostics.publish(
            diagnostics.report(
                self,
                self._standing,
                self._model,
                self._cameras,
                self._counts,
                self._captioner,
                self._last_latency,
            )
        )


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `mobilevlm`."""
    return running.run(MobileVLMNode, args)


if __name__ == "__main__":
    sys.exit(main())
