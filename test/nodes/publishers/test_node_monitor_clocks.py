# SPDX-License-Identifier: Apache-2.0
"""A monitor, questions, metrics and diagnostics while the camera's clock is wrong. The real node over DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import time_ns
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from mobilevlm_msgs.msg import Metrics, MonitorState, Status
from mobilevlm_msgs.srv import AskImage
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

from mobilevlm_ros.ros.images.messages import image_message
from mobilevlm_ros.ros.stamps import to_message
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

BLOCKED = observe(sample_scene(5), 0.0, 160, 120).image  # a ball ahead
MONITORS = """
monitors:
  - {name: blocked, question: 'Is the path ahead clear?', raised: 'no', rate: 20, hold_time: 0.2}
"""
MAX_AGE = 1.0


class Watched:
    """The node /clocks/mobilevlm, and a camera whose stamps a test chooses."""

    def __init__(self, graph: Any, bundle: Path, file: Path) -> None:
        self.graph, node = graph, graph.node
        self.states: list[MonitorState] = []
        self.metrics: list[Metrics] = []
        self.diagnostics: list[DiagnosticArray] = []
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(MonitorState, "/clocks/mobilevlm/monitors", self.states.append, latched),
            node.create_subscription(Metrics, "/clocks/mobilevlm/metrics", self.metrics.append, 10),
            node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10),
        ]
        self._pictures = node.create_publisher(Image, "/clocks/image", 1)
        parameters = {
            "bundle": bundle,
            "threads": 1,
            "monitors_file": file,
            "max_age": MAX_AGE,
            "metrics_period": 0.2,
            "diagnostics_period": 0.2,
            "caption_rate": 0.0,
        }
        self.child = graph.start("mobilevlm_node", parameters, "__ns:=/clocks")

    def show(self, ahead: float = 0.0) -> None:
        """Publish a picture of a blocked path, whose stamp is so many seconds ahead of now."""
        message = image_message(np.ascontiguousarray(BLOCKED), Image().header)
        message.header.stamp = to_message(time_ns() + round(ahead * 1e9))
        message.header.frame_id = "cam"
        self._pictures.publish(message)

    def until(self, condition: Callable[[], Any], what: str, ahead: Iterator[float] | None = None) -> None:
        """Serve until a condition holds; meanwhile show pictures, each as far ahead as the next number."""

        def look() -> bool:
            if ahead is not None:
                self.show(next(ahead))
            return bool(condition())

        self.graph.until(look, what)

    def ask(self) -> Any:
        request = AskImage.Request(question="Is the path ahead clear?", choices=["yes", "no"])
        return self.graph.call(AskImage, "/clocks/ask_image", request)

    def camera(self) -> DiagnosticStatus:
        """The newest word of /diagnostics about the camera."""
        every = [s for a in self.diagnostics for s in a.status if s.name == "clocks/mobilevlm: camera"]
        return every[-1] if every else DiagnosticStatus()

    def close(self) -> None:
        for subscription in self._subscriptions:
            self.graph.node.destroy_subscription(subscription)
        self.graph.node.destroy_publisher(self._pictures)
        self.child.stop()
        self.graph.children.remove(self.child)


@pytest.fixture(scope="module")
def watched(graph: Any, nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    file = tmp_path_factory.mktemp("clocks") / "monitors.yaml"
    file.write_text(MONITORS)
    made = Watched(graph, nano, file)
    yield made
    made.close()


def always(*ahead: float) -> Iterator[float]:
    while True:
        yield from ahead


def test_small_steps_back_and_two_clocks_change_nothing(watched: Watched) -> None:
    raised = lambda: watched.states and watched.states[-1].state == MonitorState.RAISED  # noqa: E731
    watched.until(raised, "a raised monitor", always(0.0))
    start = len(watched.states)
    orders = (always(0, 0, 0, -0.12), always(0.0, -0.7), always(0, 0, -0.4, -0.3, -0.9))
    for order in orders:
        count = len(watched.states)
        watched.until(lambda c=count: len(watched.states) >= c + 15, "15 evaluations", order)
    after = watched.states[start:]
    assert {state.state for state in after} == {MonitorState.RAISED}
    assert not any(state.changed for state in after)
    stamps = [state.header.stamp.sec * 10**9 + state.header.stamp.nanosec for state in after]
    assert stamps == sorted(stamps)


def test_a_real_jump_back_starts_anew_and_says_so(watched: Watched) -> None:
    start = len(watched.states)
    watched.until(
        lambda: any(state.changed for state in watched.states[start:]), "another state", always(-0.95 * 3600)
    )
    told = next(state for state in watched.states[start:] if state.changed)
    # The pictures of an hour ago are too old to be looked at, so the state is not known any more.
    assert told.state == MonitorState.UNKNOWN and told.status.code == Status.STALE_FRAME
    assert "clock" in told.status.message and "--clock" in told.status.message
    assert "the stamps of the camera went back" in watched.child.log()
    raised = lambda: watched.states[-1].state == MonitorState.RAISED  # noqa: E731
    watched.until(raised, "a raised monitor again", always(50.0))
    begun = len(watched.states)
    anew = lambda: any("starts anew" in state.status.message for state in watched.states[begun:])  # noqa: E731
    watched.until(anew, "the word about another jump", always(20.0))
    watched.until(raised, "a raised monitor once more", always(20.0))


def test_a_camera_that_is_ahead_and_dies_is_not_vouched_for(watched: Watched) -> None:
    ahead = always(600.0)
    warned = lambda: "600.0 s ahead of the node's" in watched.camera().message  # noqa: E731
    watched.until(warned, "a warning about the clock", ahead)
    assert watched.camera().level == DiagnosticStatus.WARN and watched.camera().message.startswith(
        "receiving"
    )
    raised = lambda: watched.states[-1].state == MonitorState.RAISED  # noqa: E731
    watched.until(raised, "a raised monitor", ahead)
    watched.show(600.0)
    asked = watched.ask()
    # It dies.
    assert asked.status.code == Status.STALE_FRAME or (
        asked.answer == "no" and "600.0 s ahead" in asked.status.message
    )
    unknown = lambda: watched.states[-1].state == MonitorState.UNKNOWN  # noqa: E731
    watched.until(unknown, "the end of the state")
    last = watched.states[-1]
    assert last.changed and last.status.code == Status.STALE_FRAME and "ahead" in last.status.message
    evaluated = [state for state in watched.states if state.status.code == Status.OK]
    assert last.since == evaluated[-1].header.stamp, "in the clock of the pictures, 600 s ahead of the node's"
    refused = watched.ask()
    assert refused.status.code == Status.STALE_FRAME and refused.answer == ""
    assert "600.0 s ahead" in refused.status.message
    stale = lambda: watched.metrics and watched.metrics[-1].cameras[0].frame_age > MAX_AGE  # noqa: E731
    watched.until(stale, "an age in the metrics")
    told = lambda: "older than max_age" in watched.camera().message  # noqa: E731
    watched.until(told, "a diagnostic of the silence")
    values = {pair.key: pair.value for pair in watched.camera().values}
    assert watched.camera().level == DiagnosticStatus.WARN and float(values["frame_age_seconds"]) >= MAX_AGE
