# SPDX-License-Identifier: Apache-2.0
"""Monitors at work: evaluated on new frames, published on ~/monitors, whether somebody listens or not."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, time_ns
from typing import Any

from mobilevlm_msgs.msg import MonitorState, Status
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile

from mobilevlm_ros.errors import Busy, MobileVLMError, RequestCancelled
from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.inference.monitoring.hysteresis import Hysteresis, State
from mobilevlm_ros.inference.monitoring.monitors import MAX_MONITORS, Monitor
from mobilevlm_ros.inference.types import Frame, Latency
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.model_manager import ModelManager
from mobilevlm_ros.nodes.publishers.monitor_batch import MonitorBatch, evaluate
from mobilevlm_ros.nodes.services.responses import header_of, latency_message
from mobilevlm_ros.ros.images.messages import jpeg_message
from mobilevlm_ros.ros.stamps import to_message
from mobilevlm_ros.ros.status import status_of

BATCH_TIMEOUT = 5.0
"""Seconds without a turn, and at least three periods, after which a monitor's state is no longer known."""


_LATCHED = QoSProfile(depth=MAX_MONITORS, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
"""Who comes late and asks for it hears the last states too: UNKNOWN is told once only."""


_ANEW = "the pictures' time went back (a bag that loops, a simulation that starts again): it starts anew"


@dataclass
class Watch:
    """One monitor on one camera, and what is known."""

    monitor: Monitor
    camera: Camera
    gate: Hysteresis
    due: float  # monotonic
    last_turn: float  # monotonic
    probability: float = math.nan
    frame: Frame | None = None  # that was evaluated last
    stamp_ns: int = 0  # its time
    status: Status = field(default_factory=lambda: Status(message="not evaluated yet"))
    told: int | None = None  # status code of the last message

    @property
    def name(self) -> str:
        """Of the monitor, and of the camera where it has a name."""
        return f"{self.monitor.name} ({self.camera.name})" if self.camera.name else self.monitor.name

    @property
    def state(self) -> State:
        """After hysteresis."""
        return self.gate.state


class Monitors:
    """Publishes ~/monitors. Created when the node is configured, at work while it is active.

    `tick`, `start` and `stop` belong to the executor's thread; evaluations end on the inference thread.

    Attributes:
        evaluations: that gave a probability.
        dropped: batches that gave way to questions.
        on_change: called with each monitor that was raised or cleared: the frame, its name and question,
            whether it was raised, how probable that is, the model id.
    """

    def __init__(self, node: Node, model: ModelManager, statistics: InferenceMetrics) -> None:
        self._node = node
        self._model = model
        self._statistics = statistics
        self._publisher = node.create_publisher(MonitorState, "~/monitors", _LATCHED)
        self._lock = threading.RLock()
        self._watches: list[Watch] = []
        self._running: set[str] = set()  # cameras with a batch on its way
        self.on_change: Callable[[Frame, str, str, bool, float, str], None] | None = None
        self.evaluations = self.dropped = 0

    @property
    def watches(self) -> Sequence[Watch]:
        """All of them, in the order of the file."""
        return tuple(self._watches)

    def start(self, monitors: Iterable[Monitor], cameras: Mapping[str, Camera]) -> None:
        """Watch with these monitors from now on; what they already know about these cameras is kept.

        Args:
            monitors: resolved, one camera each.
            cameras: by name.
        """
        now = monotonic()
        before = {(watch.monitor, watch.camera): watch for watch in self._watches}
        after = []
        for monitor in monitors:
            camera = cameras[monitor.cameras[0]]
            watch = before.pop((monitor, camera), None)
            if watch is None:
                gate = Hysteresis(monitor.threshold_up, monitor.threshold_down, monitor.hold_time)
                watch = Watch(monitor, camera, gate, now, now)
            after.append(watch)
        with self._lock:
            gone = Status(code=Status.NOT_ACTIVE, message="the monitor was taken out of the monitors file")
            for watch in before.values():
                self._cannot_tell(watch, gone)
            self._watches = after

    def stop(self, reason: str) -> None:
        """Say once that nothing is known any more, and watch no longer."""
        with self._lock:
            for watch in self._watches:
                self._cannot_tell(watch, Status(code=Status.NOT_ACTIVE, message=reason))
            self._watches = []

    def close(self, reason: str) -> None:
        """Stop, and remove the topic."""
        self.stop(reason)
        self._node.destroy_publisher(self._publisher)

    @property
    def watched(self) -> bool:
        """Whether there are any monitors."""
        return bool(self._watches)

    def tick(self) -> None:
        """Submit what is due; call it often (it costs next to nothing)."""
        now = monotonic()
        due: dict[str, list[Watch]] = {}
        for watch in self._watches:
            period = 1.0 / watch.monitor.rate
            if now >= watch.due and watch.camera.name not in self._running:
                # At whole periods of the clock, so that rates that are multiples of each other meet.
                watch.due = period * (math.floor(now / period) + 1)
                due.setdefault(watch.camera.name, []).append(watch)
            if now - watch.last_turn > max(BATCH_TIMEOUT, 3 * period):
                waited = f"{now - watch.last_turn:.0f} s"
                text = f"it has had no turn for {waited}: ask less often, or lower the rates"
                with self._lock:
                    self._cannot_tell(watch, Status(code=Status.BUSY, message=text))
        for watches in due.values():
            self._submit(watches)

    def _submit(self, watches: list[Watch]) -> None:
        """One batch: the monitors of one camera that are due together."""
        camera = watches[0].camera
        max_age = self._node.get_parameter("max_age").value
        submitted = monotonic()
        batch = [
            MonitorBatch(
                watch.monitor,
                max_age if watch.monitor.max_age is None else watch.monitor.max_age,
                watch.frame,
            )
            for watch in watches
        ]

        def turn(_: object = None) -> None:  # slow is not the same as never
            for watch in watches:
                watch.last_turn = monotonic()

        def work() -> Generator[str, None, str]:
            turn()
            return (yield from evaluate(self._model, camera, batch, submitted))

        def finished(future: Any) -> None:  # on the inference thread
            self._running.discard(camera.name)
            try:
                model_id = future.result()
                self._take(watches, batch, monotonic() - submitted, model_id)
            except (Busy, RequestCancelled):
                self.dropped += 1
            except Exception as error:  # of the model, or the context is shut down while we publish
                detail = f"{error}" if isinstance(error, MobileVLMError) else repr(error)
                log = self._node.get_logger()
                log.error(f"monitors of {camera.label} failed: {detail}", throttle_duration_sec=10.0)
                self._fail(watches, error)

        try:
            job = self._model.scheduler.submit(
                work, priority=Priority.MONITOR, source=camera.name, on_step=turn
            )
        except Busy:
            self.dropped += 1
            return
        self._running.add(camera.name)
        job.future.add_done_callback(finished)

    def _take(self, watches: list[Watch], batch: list[MonitorBatch], total: float, model_id: str) -> None:
        answers = [evaluation.answer for evaluation in batch if evaluation.answer is not None]
        self._statistics.work(answers)
        latency = Latency(
            max((answer.latency.queue for answer in answers), default=0.0),
            sum(answer.latency.encode for answer in answers),
            sum(answer.latency.prefill for answer in answers),
        )
        with self._lock:
            for watch, evaluation in zip(watches, batch):
                if not any(watch is current for current in self._watches):
                    continue  # stopped, or taken out of the file meanwhile
                watch.last_turn = monotonic()
                if evaluation.error is not None:
                    self._cannot_tell(watch, status_of(evaluation.error))
                elif evaluation.answer is not None and evaluation.frame is not None:
                    watch.probability = watch.monitor.probability(evaluation.answer.choice_probabilities)
                    self._tell(watch, evaluation.frame, latency_message(latency, total), model_id)

    def _fail(self, watches: list[Watch], error: Exception) -> None:
        try:
            with self._lock:
                for watch in watches:
                    watch.last_turn = monotonic()
                    self._cannot_tell(watch, status_of(error))
        except Exception as second:  # the context is shut down
            self._node.get_logger().debug(f"not told: {second!r}")

    def _tell(self, watch: Watch, frame: Frame, latency: Any, model_id: str) -> None:
        """Publish an evaluation."""
        self.evaluations += 1
        jumped = watch.frame is not None and watch.frame.run != frame.run
        watch.frame = frame
        # A camera that fills no stamps has only the time of our clock.
        watch.stamp_ns = frame.stamp_ns or self._now_ns() or time_ns()
        changed = watch.gate.update(watch.probability, watch.stamp_ns, frame.run)
        watch.status = Status(code=Status.OK, message=_ANEW if jumped else "")
        message = self._message(watch, changed)
        message.header = header_of(frame)
        message.latency = latency
        message.model_id = model_id
        if changed:
            self._log(watch)
            self._changed(watch, frame, model_id)
            if watch.monitor.evidence:
                message.evidence = jpeg_message(frame.image, message.header)
        self._publish(watch, message)

    def _changed(self, watch: Watch, frame: Frame, model_id: str) -> None:
        raised = watch.state is State.RAISED
        if self.on_change is not None and watch.state is not State.UNKNOWN:
            sure = watch.probability if raised else 1.0 - watch.probability
            self.on_change(frame, watch.monitor.name, watch.monitor.question, raised, sure, model_id)

    def _cannot_tell(self, watch: Watch, status: Status) -> None:
        """The state becomes UNKNOWN; published once per reason."""
        watch.probability = math.nan
        watch.status = status
        if watch.told == status.code:
            return
        # In the clock of the pictures, which need not be the node's: from the last one that was evaluated on.
        changed = watch.gate.forget(watch.stamp_ns)
        if changed:
            self._log(watch)
        message = self._message(watch, changed)
        message.model_id = self._model.loaded.model_id
        self._publish(watch, message)

    def _message(self, watch: Watch, changed: bool) -> MonitorState:
        monitor = watch.monitor
        return MonitorState(
            camera=watch.camera.name,
            name=monitor.name,
            question=monitor.question,
            status=watch.status,
            probability=watch.probability,
            state=int(watch.state),
            changed=changed,
            since=to_message(watch.gate.since_ns),
            threshold_up=monitor.threshold_up,
            threshold_down=monitor.threshold_down,
            hold_time=monitor.hold_time,
        )

    def _publish(self, watch: Watch, message: MonitorState) -> None:
        watch.told = watch.status.code
        self._publisher.publish(message)

    def _log(self, watch: Watch) -> None:
        text = f"monitor {watch.name}: {watch.state.name}"
        if watch.status.code == Status.OK:
            text += f" ({watch.probability:.2f}): {watch.monitor.question}"
        else:
            text += f": {watch.status.message}"
        self._node.get_logger().info(text)

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
