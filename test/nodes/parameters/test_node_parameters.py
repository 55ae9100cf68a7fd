# SPDX-License-Identifier: Apache-2.0
"""Values that no camera or transition could work with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from mobilevlm_msgs.msg import Status

from mobilevlm_ros.nodes import mobilevlm_node
from mobilevlm_ros.nodes.parameters.parameters import problem


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
