# SPDX-License-Identifier: Apache-2.0
"""Paths and other values that parameters take, and those that can never work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.nodes.parameters.monitors_file import MonitorsFile
from mobilevlm_ros.nodes.parameters.parameters import Parameters, problem
from mobilevlm_ros.nodes.parameters.table import SPECS

SECRET = "password: hunter2\n\tanother line"
MONITORS = "monitors:\n  - {name: a, question: 'Is it?'}\n"


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    rclpy.init(context=made)
    yield made
    made.try_shutdown()


def started(context: Context, **values: object) -> tuple[Node, Parameters, MonitorsFile]:
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = Node("paths", context=context, parameter_overrides=overrides)
    parameters = Parameters(node, lambda: True)
    return node, parameters, MonitorsFile(node, lambda: True, parameters.allowed)


def put(node: Node, name: str, value: object) -> str:
    """The reason why a parameter cannot be set; empty when it was."""
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert bool(result.reason) != result.successful
    return str(result.reason)


def test_only_allowed_files_may_be_named_over_the_graph(context: Context, tmp_path: Path) -> None:
    for folder in ("mine", "more", "theirs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.yaml").write_text(MONITORS)
    (tmp_path / "theirs" / "secret").write_text(SECRET)
    (tmp_path / "mine" / "secret").write_text(SECRET)
    (tmp_path / "mine" / "link").symlink_to(tmp_path / "theirs" / "a.yaml")
    os.mkfifo(tmp_path / "mine" / "pipe")
    mine = str(tmp_path / "mine")
    node, _, _ = started(context, monitors_file=f"{mine}/a.yaml", allowed_paths=[str(tmp_path / "more")])
    for name in ("monitors_file", "presets_file"):
        for path in (
            "/dev/zero",
            "/etc/passwd",
            f"{tmp_path}/theirs/secret",
            f"{mine}/link",
            f"{mine}/../theirs/a.yaml",
        ):
            assert "outside the directories" in put(node, name, path), path
        assert "no regular file" in put(node, name, f"{mine}/pipe")
    for path in (f"{mine}/secret", f"{tmp_path}/theirs/secret"):
        assert "hunter2" not in put(node, "monitors_file", path)
    assert put(node, "monitors_file", str(tmp_path / "more" / "a.yaml")) == ""
    assert put(node, "monitors_file", "") == ""
    assert "outside" in put(node, "bundle", "/etc")
    assert "when the node starts" in put(node, "allowed_paths", ["/"])
    assert put(node, "allowed_paths", [str(tmp_path / "more")]) == ""  # as `param load` does
    node.destroy_node()


def test_the_home_directory_is_written_as_people_write_it(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "monitors.yaml").write_text(MONITORS)
    node, _, file = started(context, monitors_file="~/monitors.yaml")
    assert [monitor.name for monitor in file.read()] == ["a"]
    node.destroy_node()


@pytest.mark.parametrize("value", ["", " \n", "a <image> b", "a\x07b", "x" * 3000, "\u200b"])
def test_a_caption_prompt_that_no_question_could_be_is_refused(value: str) -> None:
    assert problem("caption_prompt", value).startswith("caption_prompt")


@pytest.mark.parametrize("names", [[], ["a", "a"], ["*"], ["1 b"]])
def test_cameras_that_cannot_be_are_told(context: Context, names: list[str]) -> None:
    node, parameters, _ = started(context, cameras=names)
    assert any(text.startswith("cameras") for text in parameters.problems())
    node.destroy_node()


def test_what_was_dumped_can_be_loaded_into_a_configured_node(context: Context, tmp_path: Path) -> None:
    """`ros2 param load` sets every parameter of the file, those too that take effect when configured."""
    (tmp_path / "monitors.yaml").write_text(MONITORS)
    node = Node(
        "dumped",
        context=context,
        parameter_overrides=[
            Parameter("monitors_file", value=str(tmp_path / "monitors.yaml")),
            Parameter("bundle", value="/data/bundle"),
            Parameter("allowed_paths", value=["~/shared"]),
        ],
    )
    parameters = Parameters(node, lambda: False)
    MonitorsFile(node, lambda: False, parameters.allowed)
    values = {spec.name: node.get_parameter(spec.name).value for spec in SPECS}
    assert [put(node, name, value) for name, value in values.items()] == [""] * len(SPECS)
    node.destroy_node()
