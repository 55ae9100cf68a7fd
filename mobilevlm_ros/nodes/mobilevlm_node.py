# SPDX-License-Identifier: Apache-2.0
"""The node: a lifecycle node that answers questions about its cameras and watches them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from mobilevlm_msgs.msg import Status
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from mobilevlm_ros.errors import ConfigurationError, MobileVLMError, contained
from mobilevlm_ros.inference.monitoring.monitors import Monitor
from mobilevlm_ros.nodes.bond import Bond
from mobilevlm_ros.nodes.bundle_watch import BundleWatch
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.live_settings import LiveParameters, read_settings
from mobilevlm_ros.nodes.model_manager import ModelManager, Settings, load_bundle, release_memory
from mobilevlm_ros.nodes.name_watch import NameWatch
from mobilevlm_ros.nodes.node_state import NodeState
from mobilevlm_ros.nodes.parameters.monitors_file import MonitorsFile
from mobilevlm_ros.nodes.parameters.parameters import Parameters
from mobilevlm_ros.nodes.parameters.table import SPECS
from mobilevlm_ros.nodes.publishers import diagnostics
from mobilevlm_ros.nodes.publishers.periodic import PeriodicPublishers
from mobilevlm_ros.nodes.self_test import self_test_steps
from mobilevlm_ros.nodes.services.ask_server import AskServer
from mobilevlm_ros.nodes.services.memory_server import MemoryServer
from mobilevlm_ros.nodes.services.reload_server import Reloader
from mobilevlm_ros.ros import spin as running
from mobilevlm_ros.ros.delivery import Redelivery
from mobilevlm_ros.ros.images.encodings import parse_encodings
from mobilevlm_ros.ros.status import Refused, status_of

REFRESH_PERIOD = 1.0
"""Seconds between looks at the cameras' topics and at the clients that wait."""

STANDING_TICK, IDLE_TICK = 0.05, 0.25
"""Seconds between looks at what is due unasked, and at whether somebody listens again. Each wakes the
executor, which costs a millisecond.
"""

_UNCONFIGURED = "the node is not configured yet: run `ros2 lifecycle set <node> configure`, then activate"
_INACTIVE = "the node is not active: run `ros2 lifecycle set <node> activate`"
_SHUT_DOWN = "the node was shut down: start it again"
_FAILED = "a lifecycle transition failed (see the log): configure the node again"


Transition = Callable[["MobileVLMNode", LifecycleState], TransitionCallbackReturn]


def _logged(transition: Transition) -> Transition:
    """rclpy turns an exception in a transition into its error state, and drops the exception."""

    @wraps(transition)
    def run(node: MobileVLMNode, state: LifecycleState) -> TransitionCallbackReturn:
        node.in_transition = True
        try:
            return transition(node, state)
        except BaseException as error:  # a native library's panic is none of Exception's kind
            node.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            raise contained(error) from error
        finally:
            node.in_transition = False

    return run


class MobileVLMNode(LifecycleNode):
    """The lifecycle. Everything here runs on the executor's thread.

    Attributes:
        node_state: what the node can do right now.
        ask_server: serves the questions.
        in_transition: whether a lifecycle transition runs.
        callback_faults: callbacks that ended with an error.
    """

    def __init__(self, name: str = "mobilevlm") -> None:
        super().__init__(name)
        self.node_state = NodeState(Status(code=Status.NOT_ACTIVE, message=_UNCONFIGURED))
        self.in_transition = False
        self.callback_faults = 0
        self._declared = Parameters(self, lambda: self.node_state.model is None)
        self._monitors_file = MonitorsFile(
            self, lambda: self.node_state.model is None, self._declared.allowed
        )
        self._live = LiveParameters(self, self.node_state)
        self._names = NameWatch(self)
        self._bundle_watch = BundleWatch(self.get_logger().warning)
        self._redelivery = Redelivery(self)
        self.ask_server = AskServer(self, self.node_state, self._redelivery)
        self._memory = MemoryServer(self, self.node_state)
        self._reloader = Reloader(self, self.node_state, self._on_swapped)
        self._periodic: PeriodicPublishers | None = None
        self._ticker: Any = None
        self._bond = Bond(self, 0.0)
        self._pulses: list[Any] = []  # timers that run while the node is active
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        period = self.get_parameter("diagnostics_period").value
        self.create_timer(period, self._publish_diagnostics, clock=self._steady)
        for service in self.services:  # those of the parameters and the lifecycle too
            self._redelivery.cover(service)
        if self.get_parameter("autostart").value:
            self.trigger_configure()
            if self.node_state.model is not None:
                self.trigger_activate()

    @_logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle; on failure stay unconfigured with the reason in the log and in every status."""
        try:
            if wrong := self._declared.problems():
                raise Refused(Status.NOT_ACTIVE, "; ".join(wrong))
            self._read_monitors()
            self._bond = Bond(self, self.get_parameter("bond_heartbeat_period").value)
            self._memory.open()
            loaded = load_bundle(read_settings(self))
        except BaseException as error:
            self._memory.close()
            self._bond.close()
            return self._refuse("configured", contained(error))
        model = ModelManager(loaded, self.get_parameter("queue_size").value)
        self.node_state.model = model
        self.node_state.status = Status(code=Status.NOT_ACTIVE, message=_INACTIVE)
        self.ask_server.reset()
        self._periodic = PeriodicPublishers(self, model, self.ask_server, self._monitors_file, self._memory)
        self.get_logger().info(
            f"loaded {loaded.model_id} in {loaded.load_seconds:.1f} s on {loaded.runtime.backend_name} "
            f"({loaded.runtime.reason})"
        )
        return super().on_configure(state)

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the cameras and answer, if the model passes its self-test."""
        try:
            monitors = self._read_monitors()  # the file may have changed since it was configured
            if self.node_state.model is not None and self.get_parameter("self_test").value:
                self._test(self.node_state.model)
        except BaseException as error:
            return self._refuse("activated", contained(error))
        reliable = self.get_parameter("reliability").value == "reliable"
        transport = self.get_parameter("transport").value
        names = self.get_parameter("cameras").value
        history = (self.get_parameter("history_mb").value << 20, self.get_parameter("history_rate").value)
        entries = self.get_parameter("encodings").value
        self.node_state.cameras = {
            name: Camera(self, name, transport, reliable, *history, parse_encodings(entries, name))
            for name in names
        }
        self._refresh()
        self._pulses.append(self.create_timer(REFRESH_PERIOD, self._refresh, clock=self._steady))
        if self._periodic is not None:
            self._periodic.start(self.node_state.cameras, monitors)
            self._ticker = self.create_timer(STANDING_TICK, self._tick, clock=self._steady)
            self._pulses.append(self._ticker)
        self.node_state.status = Status(code=Status.OK)
        self._bond.start()
        self.get_logger().info("active: ask on " + self.resolve_service_name("ask_image"))
        return super().on_activate(state)

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and watching; the model stays loaded. Questions on their way get CANCELLED."""
        self._stop(_INACTIVE)
        return super().on_deactivate(state)

    @_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._free(_UNCONFIGURED)
        return super().on_cleanup(state)

    @_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node cannot be configured again."""
        self._free(_SHUT_DOWN)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed on the way: free everything, so that the node can be configured again."""
        self.get_logger().error(_FAILED)
        self._free(_FAILED)
        return super().on_error(state)

    def close(self, timeout: float) -> bool:
        """Before the process ends: True if all threads ended within `timeout` seconds."""
        cameras = list(self.node_state.cameras.values())
        self._stop(_SHUT_DOWN)
        ended = self.node_state.model.close(timeout) if self.node_state.model is not None else True
        self._memory.close()
        return ended and not self.ask_server.decoding and not any(camera.decoding for camera in cameras)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return self.ask_server.busy or self._redelivery.pending > 0

    @property
    def hang_timeout(self) -> float:
        """Seconds without progress that are taken for a hang; 0 = never."""
        return float(self.get_parameter("hang_timeout").value)

    @property
    def stuck_seconds(self) -> float:
        """How long the step at hand of the inference thread has taken."""
        model = self.node_state.model
        return 0.0 if model is None else model.scheduler.step_seconds

    def _refuse(self, what: str, error: Exception) -> TransitionCallbackReturn:
        """The reason goes into the log, /diagnostics, and the status of every question."""
        self.node_state.status = status_of(error)
        detail = "" if isinstance(error, MobileVLMError) else f"\n{traceback.format_exc()}"
        self.get_logger().error(f"cannot be {what}: {error}{detail}")
        return TransitionCallbackReturn.FAILURE

    def _read_monitors(self) -> list[Monitor]:
        """Raises Refused with the reason why those of the parameters cannot work."""
        try:
            return self._monitors_file.read()
        except ConfigurationError as error:
            raise Refused(Status.NOT_ACTIVE, str(error)) from error

    def _test(self, model: ModelManager) -> None:
        assistant = model.loaded.assistant
        result = model.scheduler.submit(lambda: self_test_steps(assistant)).future.result()
        self.get_logger().info(f"self-test passed in {result.seconds:.1f} s: {result.said!r}")

    def _on_swapped(self, settings: Settings) -> None:
        self._declared.store(bundle=settings.bundle, backend=settings.backend)

    def _stop(self, reason: str) -> None:
        self.node_state.status = Status(code=Status.NOT_ACTIVE, message=reason)
        for timer in self._pulses:
            self.destroy_timer(timer)
        self._pulses = []
        self._ticker = None
        self._bond.stop()
        if self._periodic is not None:
            self._periodic.stop(reason)
        self.ask_server.cancel_all()
        for camera in self.node_state.cameras.values():
            camera.close()
        self.node_state.cameras = {}

    def _free(self, reason: str) -> None:
        self._stop(reason)
        if self._periodic is not None:
            self._periodic.close(reason)
            self._periodic = None
        self._bond.close()
        self._memory.close()
        if self.node_state.model is not None:
            self.node_state.model.close()
            self.node_state.model = None
            release_memory()

    def _tick(self) -> None:
        if self._periodic is None or self._ticker is None:
            return
        self._periodic.tick()
        period = int((IDLE_TICK if self._periodic.idle else STANDING_TICK) * 1e9)
        if self._ticker.timer_period_ns != period:
            self._ticker.timer_period_ns = period

    def _refresh(self) -> None:
        for camera in self.node_state.cameras.values():
            camera.refresh()
        self.ask_server.look_at_clients()
        self._names.look()

    def _publish_diagnostics(self) -> None:
        model = self.node_state.model
        change = "" if model is None else self._bundle_watch.look(model.loaded.runtime.bundle)
        self._diagnostics.publish(
            diagnostics.report(self, self.node_state, self.ask_server, self._periodic, self._memory, change)
        )


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `mobilevlm_node`."""
    return running.run(MobileVLMNode, args, {spec.name: spec.description for spec in SPECS})


if __name__ == "__main__":
    sys.exit(main())
