# SPDX-License-Identifier: Apache-2.0
"""Values that no camera or transition could work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from mobilevlm_msgs.msg import Status

from mobilevlm_ros.nodes import mobilevlm_node
from mobilevlm_ros.nodes.parameters.parameters import Parameters, problem
from mobilevlm_ros.nodes.parameters.table import SPECS


@pytest.fixture
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.mark.parametrize("name", ["front cam", "1st", "a//b", "~x", "kamera-ü", "a/", "*"])
def test_a_camera_whose_topic_could_not_exist_is_refused(name: str) -> None:
    told = problem("cameras", ["", name])
    assert told.startswith("cameras ") and repr(name) in told


@pytest.mark.parametrize("names", [[""], ["left", "right"], ["robot_1/front", "/absolute", "~/own"]])
def test_names_that_topics_can_have_are_taken(names: list[str]) -> None:
    assert problem("cameras", names) == ""


def test_a_transition_that_breaks_says_why_in_the_log(
    ros: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no such wire")

    monkeypatch.setattr(mobilevlm_node, "Camera", broken)
    node = mobilevlm_node.MobileVLMNode("broken")
    try:
        assert node.node_state.status.code == Status.NOT_ACTIVE and node.node_state.model is None
        told = capfd.readouterr().err
        assert "on_activate failed" in told and "RuntimeError: no such wire" in told
    finally:
        node.close(10.0)
        node.destroy_node()


@pytest.fixture
def started() -> Iterator[Callable[..., Any]]:
    """Starts a plain node with the node's parameters from arguments: started("max_age:=2")."""
    nodes: list[Any] = []

    def start(*values: str) -> Any:
        rclpy.init(args=["--ros-args", *(word for value in values for word in ("-p", value))])
        nodes.append(rclpy.create_node("started"))
        nodes[-1].declared = Parameters(nodes[-1], lambda: True)
        return nodes[-1]

    yield start
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("autostart:=False", "autostart", False),
        ("autostart:=FALSE", "autostart", False),
        ("autostart:='\"fAlSe\"'", "autostart", False),
        ("self_test:='\"True\"'", "self_test", True),
        ("max_age:=2", "max_age", 2.0),
        ("caption_rate:=0", "caption_rate", 0.0),
        ("bundle:=2024", "bundle", "2024"),
        ("cameras:=front", "cameras", ["front"]),
        ("cameras:='front, rear'", "cameras", ["front", "rear"]),
        ("cameras:=[front, rear]", "cameras", ["front", "rear"]),
        ("max_tokens:=7", "max_tokens", 7),
    ],
)
def test_values_are_taken_as_people_write_them(
    started: Callable[..., Any], written: str, name: str, value: Any
) -> None:
    node = started(written)
    assert node.get_parameter(name).value == value and node.declared.problems() == []


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("threads:=two", "threads is 'two': give a whole number from 0 to 256"),
        ("threads:=-4", "threads is -4: give a whole number from 0 to 256"),
        ("threads:=1.5", "threads is 1.5: give a whole number"),
        ("autostart:=maybe", "autostart is 'maybe': give true or false"),
        ("autostart:=1", "autostart is 1: give true or false"),
        ("max_age:=old", "max_age is 'old': give a number from -1 to 86400"),
        ("caption_rate:=1e9", "caption_rate is 1000000000.0: give a number from 0 to 20"),
        ("cameras:=[1, 2]", "cameras is"),
        ("bundle:=[a, b]", "bundle is"),
        ("transport:=pigeon", "transport is 'pigeon': choose one of"),
    ],
)
def test_a_value_that_cannot_be_taken_is_a_problem_and_no_end(
    started: Callable[..., Any], written: str, told: str
) -> None:
    """A node that ended over it would be started again by launch for ever."""
    node = started(written)
    (problem,) = node.declared.problems()
    assert problem.startswith(told)
    name = written.partition(":=")[0]
    good = {spec.name: spec.default for spec in SPECS}[name]
    assert node.set_parameters([rclpy.parameter.Parameter(name, value=good)])[0].successful
    assert node.declared.problems() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backend", ""),
        ("backend", "tensor rt"),
        ("backend", "abacus"),
        ("timeout", 0.0),
        ("timeout", 1e-9),
        ("max_age", 0.0),
        ("max_age", 1e-9),
        ("hang_timeout", 1e-9),
        ("hang_timeout", 0.1),
        ("max_age", float("nan")),
    ],
)
def test_values_with_which_nothing_would_ever_work_are_refused(name: str, value: object) -> None:
    assert problem(name, value).startswith(f"{name} is ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", -1.0), ("timeout", 0.5), ("max_age", -1.0), ("max_age", 0.001), ("hang_timeout", 0.0)],
)
def test_times_that_mean_none_or_little_are_taken(name: str, value: float) -> None:
    assert problem(name, value) == ""
