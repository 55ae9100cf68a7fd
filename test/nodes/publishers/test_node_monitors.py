# SPDX-License-Identifier: Apache-2.0
"""Monitors over DDS: a camera that meets one scene after the other, a node that watches, and the truth."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mobilevlm_msgs.msg import Metrics, MonitorState, Status
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobilevlm_ros.inference.monitoring.novelty import difference, thumbnail
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sequence import SceneSequence

SHIPPED = Path(__file__).resolve().parents[3] / "config" / "monitors.yaml"
FIRST_SEED = 4  # nobody; then a person and a ball in the way; then persons; then two scenes without
SCENE_SECONDS = 5.0


class Watching:
    """A node in the namespace /watch, and all that it says."""

    def __init__(self, graph: Any, bundle: Path, monitors_file: Path) -> None:
        self.graph = graph
        self.file = monitors_file
        self.states: list[MonitorState] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.scenes: list[String] = []
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node = graph.node
        self._subscriptions = [
            node.create_subscription(MonitorState, "/watch/mobilevlm/monitors", self.states.append, latched),
            node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10),
            node.create_subscription(String, "/watch/camera/scene", self.scenes.append, latched),
        ]
        graph.client_of(SetParameters, "/watch/mobilevlm/set_parameters")
        graph.client_of(ChangeState, "/watch/mobilevlm/change_state")
        parameters = {
            "bundle": bundle,
            "threads": 1,
            "cameras": "['', 'silent']",
            "monitors_file": monitors_file,
            "max_age": 1.5,
            "metrics_period": 0.2,
            "annotated_rate": 4.0,
        }
        self.child = graph.start("mobilevlm_node", parameters, "__ns:=/watch")

    def set(self, name: str, value: str) -> Any:
        wrapped = ParameterValue(type=4, string_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=wrapped)])
        return self.graph.call(SetParameters, "/watch/mobilevlm/set_parameters", request).results[0]

    def change(self, transition: int) -> bool:
        return bool(self.graph.change("/watch/mobilevlm/change_state", transition))

    def of(self, name: str, camera: str = "") -> list[MonitorState]:
        return [state for state in self.states if state.name == name and state.camera == camera]

    def seconds(self, stamp: Any) -> float:
        """Since the first scene began."""
        about = json.loads(self.scenes[-1].data)
        return (stamp.sec * 1_000_000_000 + stamp.nanosec - about["start_ns"]) * 1e-9

    def seen(self, stamp: Any) -> Any:
        """What the picture of a stamp shows in truth."""
        return observe(*SceneSequence(FIRST_SEED, SCENE_SECONDS).at(self.seconds(stamp)))

    def status(self, name: str) -> DiagnosticStatus | None:
        """The newest diagnostic of a name."""
        every = [
            s for array in self.diagnostics for s in array.status if s.name == f"watch/mobilevlm: {name}"
        ]
        return every[-1] if every else None

    def close(self) -> None:
        for subscription in self._subscriptions:
            self.graph.node.destroy_subscription(subscription)
        self.child.stop()
        self.graph.children.remove(self.child)


@pytest.fixture(scope="module")
def watching(graph: Any, nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    file = tmp_path_factory.mktemp("monitors") / "monitors.yaml"
    shutil.copyfile(SHIPPED, file)
    made = Watching(graph, nano, file)
    yield made
    made.close()


def truly(observation: Any, kind: str) -> bool:
    return any(seen.thing.kind == kind for seen in observation.seen)


def test_without_a_picture_each_monitor_says_so_once(watching: Watching) -> None:
    names = ("person", "path_blocked", "red_light")
    watching.graph.until(lambda: all(watching.of(name) for name in names), "a word of each monitor")
    for name in names:
        (state,) = watching.of(name)
        assert state.state == MonitorState.UNKNOWN and math.isnan(state.probability) and not state.changed
        assert state.status.code == Status.NO_FRAME and "image" in state.status.message
        assert state.header.stamp.sec == 0 and "@" in state.model_id
    known = lambda: (s := watching.status("monitor person")) and s.level == DiagnosticStatus.WARN  # noqa: E731
    watching.graph.until(known, "the diagnostic of a monitor that cannot be evaluated")
    assert "not known" in watching.status("monitor person").message


def test_a_monitor_is_raised_and_cleared_as_the_scene_changes_and_tells_the_truth(watching: Watching) -> None:
    graph = watching.graph
    parameters = {"seed": FIRST_SEED, "scene_seconds": SCENE_SECONDS, "rate": 10.0}
    camera = graph.start("camera_node", parameters, "__ns:=/watch")
    graph.until(lambda: watching.scenes, "the camera's word about its scene")

    def changes() -> list[MonitorState]:
        return [state for state in watching.of("person") if state.changed]

    def cleared_again() -> bool:
        kinds = [state.state for state in changes()]
        return MonitorState.RAISED in kinds and kinds[-1] == MonitorState.CLEAR

    def reported() -> bool:
        found = watching.status("monitor person")
        return found is not None and found.level == DiagnosticStatus.WARN and "raised" in found.message

    graph.until(reported, "a raised monitor in the diagnostics")
    graph.until(cleared_again, "a person that came and went")
    camera.stop()
    graph.children.remove(camera)

    evaluated = [state for state in watching.of("person") if state.status.code == Status.OK]
    right = [
        (state.probability > 0.5) == truly(watching.seen(state.header.stamp), "person") for state in evaluated
    ]
    assert len(right) >= 8 and np.mean(right) >= 0.9
    states = [state.state for state in changes()]
    assert states[states.index(MonitorState.RAISED) - 1] == MonitorState.CLEAR
    raised = changes()[states.index(MonitorState.RAISED)]
    # Truth: there is a person from the second scene to the third; it was held for half a second.
    assert SCENE_SECONDS + 0.5 <= watching.seconds(raised.since) < 3 * SCENE_SECONDS
    assert raised.since == raised.header.stamp and raised.header.frame_id == "camera_optical_frame"
    assert raised.hold_time == 0.5 and raised.threshold_up == pytest.approx(0.8)
    cleared = changes()[-1]
    assert watching.seconds(cleared.since) >= 3 * SCENE_SECONDS + 0.5
    assert cleared.latency.total > 0


def test_evidence_is_the_picture_itself_and_only_where_it_is_configured(watching: Watching) -> None:
    for state in watching.states:
        wanted = state.name == "person" and state.changed and state.status.code == Status.OK
        assert bool(len(state.evidence.data)) == wanted
        if wanted:
            assert state.evidence.header == state.header
            shown, true = compressed_to_rgb(state.evidence), watching.seen(state.header.stamp).image
            assert shown.shape == true.shape
            assert difference(thumbnail(shown), thumbnail(true)) < 0.02  # any other moment differs by more


def test_every_message_obeys_its_definition(watching: Watching) -> None:
    for name in ("person", "path_blocked", "red_light"):
        before, since, evaluated = MonitorState.UNKNOWN, 0, 0
        stamps = [s.header.stamp for s in watching.of(name) if s.status.code == Status.OK]
        assert len(stamps) == len({(s.sec, s.nanosec) for s in stamps})  # a frame is evaluated once
        for state in watching.of(name):
            assert state.changed == (state.state != before)
            now = state.since.sec * 1_000_000_000 + state.since.nanosec
            stamp = state.header.stamp.sec * 1_000_000_000 + state.header.stamp.nanosec
            evaluated = stamp if state.status.code == Status.OK else evaluated
            assert now == (evaluated if state.changed else since), "in the clock of the pictures"
            assert math.isnan(state.probability) == (state.status.code != Status.OK)
            before, since = state.state, now


def test_a_camera_that_falls_silent_makes_its_monitors_unknown_once(watching: Watching) -> None:
    last = lambda: watching.of("person")[-1]  # noqa: E731
    watching.graph.until(lambda: last().state == MonitorState.UNKNOWN, "the silence")
    assert last().changed and last().status.code == Status.STALE_FRAME
    count = len(watching.of("person"))
    arrays = len(watching.diagnostics)
    watching.graph.until(lambda: len(watching.diagnostics) > arrays + 6, "two seconds of diagnostics")
    assert len(watching.of("person")) == count


def test_the_file_is_read_again_when_the_parameter_is_set_and_a_bad_one_is_refused(
    watching: Watching,
) -> None:
    good = "monitors:\n  - {name: cone, question: 'Is there a cone?', camera: '*'}\n"
    for text, reason in (
        (good.replace("question", "query"), "line 2"),
        (good.replace("'*'", "rear"), "no camera 'rear' is configured"),
        (good.replace("}", ", rate: 1000}"), "rate is 1000"),
    ):
        watching.file.write_text(text)
        refused = watching.set("monitors_file", str(watching.file))
        assert not refused.successful and reason in refused.reason
    assert not watching.set("monitors_file", "/no/such/file.yaml").successful
    watching.file.write_text(good)
    assert watching.set("monitors_file", str(watching.file)).successful
    watching.graph.until(lambda: watching.of("cone") and watching.of("cone", "silent"), "the new monitors")
    gone = watching.of("person")[-1]
    assert gone.status.code == Status.NOT_ACTIVE and "taken out" in gone.status.message


def test_metrics_count_what_was_done_and_name_the_cameras(watching: Watching) -> None:
    heard: list[Metrics] = []
    subscription = watching.graph.node.create_subscription(
        Metrics, "/watch/mobilevlm/metrics", heard.append, 10
    )
    watching.graph.until(lambda: heard, "metrics")
    metrics = heard[-1]
    node = watching.graph.node
    topics = ((Image, "/watch/silent/image"), (CompressedImage, "/watch/silent/image/compressed"))
    publishers = [node.create_publisher(kind, topic, 1) for kind, topic in topics]
    # Raw and compressed together, as in /diagnostics.
    watching.graph.until(lambda: heard[-1].cameras[1].publishers == 2, "the count of both publishers")
    for publisher in publishers:
        node.destroy_publisher(publisher)
    node.destroy_subscription(subscription)
    evaluated = sum(state.status.code == Status.OK for state in watching.states)
    assert metrics.monitor_evaluations == evaluated > 0 and metrics.questions_answered == 0
    assert [camera.camera for camera in metrics.cameras] == ["", "silent"]
    assert metrics.cameras[0].frames_taken > 0 and metrics.memory_device == 0
    assert [camera.publishers for camera in metrics.cameras] == [0, 0]
    assert math.isnan(metrics.cameras[1].frame_age) and metrics.cameras[0].topic.startswith("/watch/image")
    assert metrics.memory_resident > 50e6 and metrics.queue_capacity == 16 and metrics.window > 0
    assert math.isnan(metrics.total_p50) and 0 <= metrics.utilization <= 1 and "@" in metrics.model_id


def test_a_deactivated_node_no_longer_vouches_for_its_monitors(watching: Watching) -> None:
    assert watching.change(Transition.TRANSITION_DEACTIVATE)
    told = lambda: watching.of("cone")[-1].status.code == Status.NOT_ACTIVE  # noqa: E731
    watching.graph.until(told, "the end of the watch")
    assert "activate" in watching.of("cone")[-1].status.message
    watching.file.write_text("monitors: 5")
    assert not watching.change(Transition.TRANSITION_ACTIVATE)
    assert "must be a list" in watching.child.log()
    watching.file.write_text("monitors: []")
    assert watching.change(Transition.TRANSITION_ACTIVATE)


def test_the_annotated_image_has_lamps_and_is_made_only_for_listeners(watching: Watching) -> None:
    watching.file.write_text(SHIPPED.read_text())
    assert watching.set("monitors_file", str(watching.file)).successful
    camera = watching.graph.start("camera_node", {"seed": 5, "rate": 10.0}, "__ns:=/watch")
    images: list[Image] = []
    subscription = watching.graph.node.create_subscription(
        Image, "/watch/mobilevlm/annotated_image", images.append, 2
    )
    own = "/watch/mobilevlm/annotated_image/silent"
    watching.graph.until(
        lambda: watching.graph.node.count_publishers(own) == 1, "a topic for the named camera"
    )

    def lamp_is_red() -> bool:
        return bool(images) and (image_to_rgb(images[-1])[:60] == (238, 102, 92)).all(axis=2).any()

    watching.graph.until(lamp_is_red, "a red lamp for the person")
    watching.graph.node.destroy_subscription(subscription)
    camera.stop()
    watching.graph.children.remove(camera)
    assert image_to_rgb(images[-1]).shape == (480, 640, 3)
