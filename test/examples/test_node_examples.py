# SPDX-License-Identifier: Apache-2.0
"""The examples that ask a node, against a real one, with the simulation's truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mobilevlm_msgs.msg import Caption, MonitorState
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool

from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import KINDS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

ROOT = Path(__file__).parents[2]
LIMIT = 90.0
PERSON_AHEAD, NOBODY = 5, 4  # seeds: a person, and a ball in the way; and neither


def run(script: str, *arguments: str) -> str:
    """What an example says until it ends by itself."""
    program = [sys.executable, f"examples/{script}", *arguments]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, env=os.environ)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_questions_at_once_and_a_stream(node: Any, nano: Path) -> None:
    said = run("asyncio_client.py").splitlines()
    assert [line.split("?")[0] for line in said[:3]] == [
        "What is on the left",
        "What is on the right",
        "Is it day or dusk",
    ]
    assert all(line.endswith(".") for line in said[:3])
    assert "[confidence " in said[3] and "picture of " in said[3]


def test_the_watcher_stops_on_no(node: Any, nano: Path, seed: int) -> None:
    there = {thing.thing.kind for thing in observe(sample_scene(seed), 0.0, 640, 480).seen}
    absent = next(kind for kind in KINDS if kind not in there)
    question = f"Is there a {absent}?"
    said = run("door_watcher.py", "--ros-args", "-p", f"question:={question}", "-p", "period:=0.2")
    assert f"{question} no (" in said


@pytest.mark.parametrize("camera", ["", "no such camera"])
def test_a_tree_decides_by_what_it_sees(node: Any, nano: Path, seed: int, camera: str) -> None:
    """The default camera sees a ball and a green light, and nobody."""
    pytest.importorskip("py_trees")
    program = [sys.executable, "examples/behaviour_tree.py", camera]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, env=os.environ)
    lines = result.stdout.splitlines()
    if camera:
        assert (result.returncode, lines[-1]) == (1, "stop"), result.stderr
        assert "nobody ahead: failure UNKNOWN_CAMERA" in result.stdout or "no camera" in result.stdout
    else:
        assert (result.returncode, lines[-1]) == (0, "drive on"), result.stdout + result.stderr
        assert any(line.startswith("light: success green") for line in lines)


def test_captions_become_json_lines(node: Any, nano: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    for _ in range(2):  # the second time it appends
        run("captions_to_jsonl.py", "--ros-args", "-p", f"output:={output}", "-p", "count:=1")
    captions = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(captions) == 2
    for caption in captions:
        assert caption["text"] and 0 <= caption["confidence"] <= 1 and caption["stamp"] > 0
        assert set(caption) >= {field for field in Caption.get_fields_and_field_types() if field != "header"}


@pytest.fixture
def warehouse(graph: Any, nano: Path) -> Iterator[Callable[[str], Any]]:
    """A node with the warehouse's monitors and two cameras; starts what a camera sees: see(camera, seed)."""
    monitors = ROOT / "examples" / "warehouse" / "monitors.yaml"
    parameters = {"bundle": nano, "threads": 1, "cameras": "['front', 'rear']", "monitors_file": monitors}
    children = [graph.start("mobilevlm_node", parameters, "__ns:=/warehouse")]

    def see(camera: str, seed: int) -> Any:
        images = [f"image:={camera}/image", f"image/compressed:={camera}/image/compressed"]
        names = [f"__node:={camera}_camera", "__ns:=/warehouse"]
        children.append(graph.start("camera_node", {"seed": seed, "rate": 4.0}, *names, *images))
        return children[-1]

    yield see
    for child in children:
        child.stop()
        graph.children.remove(child)


def test_the_robot_stops_for_what_its_monitors_see(graph: Any, warehouse: Callable[..., Any]) -> None:
    heard: list[bool] = []
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = graph.node.create_subscription(
        Bool, "/warehouse/stop", lambda message: heard.append(message.data), latched
    )
    states: dict[tuple[str, str], int] = {}
    watched = graph.node.create_subscription(
        MonitorState,
        "/warehouse/mobilevlm/monitors",
        lambda message: states.update({(message.name, message.camera): message.state}),
        latched,
    )
    program = [sys.executable, "examples/warehouse/safety_stop.py", "--ros-args", "-r", "__ns:=/warehouse"]
    with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True) as robot:
        try:
            graph.until(lambda: heard == [True], "a stop before anything is known")
            front, _ = warehouse("front", NOBODY), warehouse("rear", NOBODY)
            graph.until(lambda: heard[-1] is False, "free to go")
            front.stop()
            warehouse("front", PERSON_AHEAD)
            graph.until(lambda: states.get(("person", "front")) == MonitorState.RAISED, "the person is seen")
            graph.until(lambda: heard[-1] is True, "a stop")
        finally:
            robot.terminate()
            said = robot.stderr.read() if robot.stderr else ""
    for one in (subscription, watched):
        graph.node.destroy_subscription(one)
    assert "free to go" in said and "STOP" in said
    assert "person [front] CLEAR" in said and "person [rear] CLEAR" in said
