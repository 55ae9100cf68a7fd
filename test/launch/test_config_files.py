# SPDX-License-Identifier: Apache-2.0
"""Files that other programs read: parameters, layouts, the world for Gazebo."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"


def message_fields(name: str) -> set[str]:
    """Names of the fields of one of our messages."""
    text = (ROOT / "msg" / "msg" / f"{name}.msg").read_text()
    return set(re.findall(r"^[\w/\[\]]+\s+([a-z]\w*)", text, re.MULTILINE))


TOPICS = {
    "/mobilevlm/captions": "Caption",
    "/mobilevlm/monitors": "MonitorState",
    "/mobilevlm/metrics": "Metrics",
}


@pytest.mark.parametrize("name", ["nano.yaml", "orin.yaml"])
def test_parameter_files_hold_values_that_the_node_takes(name: str) -> None:
    parameters = pytest.importorskip(
        "mobilevlm_ros.nodes.parameters.parameters", reason="rclpy is not installed"
    )
    values = yaml.safe_load((CONFIG / name).read_text())["/**"]["ros__parameters"]
    specs = {spec.name: spec for spec in parameters.SPECS}
    for key, value in values.items():
        spec = specs[key]
        assert type(value) is type(spec.default), key
        assert parameters.problem(key, value) == "", key
        low, high = spec.bounds or (float("-inf"), float("inf"))
        assert isinstance(value, (str, bool, list)) or low <= value <= high, key


def panels(layout: Any) -> Iterator[str]:
    """Ids of the panels that a Foxglove layout places."""
    if isinstance(layout, str):
        yield layout
    else:
        yield from panels(layout["first"])
        yield from panels(layout["second"])


def test_the_foxglove_layout_shows_what_the_node_publishes() -> None:
    layout = json.loads((CONFIG / "foxglove.json").read_text())
    configs = layout["configById"]
    assert sorted(panels(layout["layout"])) == sorted(configs)
    kinds = {name.partition("!")[0] for name in configs}
    assert {"Image", "RawMessages", "DiagnosticSummary", "Plot", "StateTransitions", "CallService"} <= kinds
    assert all(panel["foxglovePanelTitle"] and "title" not in panel for panel in configs.values())
    paths = [path["value"] for panel in configs.values() for path in panel.get("paths", ())]
    paths.append(configs["RawMessages!caption"]["topicPath"])
    for path in paths:
        found = re.fullmatch(r'(/[\w/]+)(\{(\w+)=="\w+"\})?\.(\w+)', path)
        assert found, path
        topic, _, key, field = found.groups()
        assert {field, *([key] if key else [])} <= message_fields(TOPICS[topic]), path


def test_foxglove_shows_each_shipped_monitor_as_a_series_of_its_own() -> None:
    configs = json.loads((CONFIG / "foxglove.json").read_text())["configById"]
    monitors = yaml.safe_load((CONFIG / "monitors.yaml").read_text())["monitors"]
    names = [monitor["name"] for monitor in monitors]
    for panel, field in (("StateTransitions!monitors", "state"), ("Plot!probability", "probability")):
        series = [(path["label"], path["value"]) for path in configs[panel]["paths"]]
        assert series == [(name, f'/mobilevlm/monitors{{name=="{name}"}}.{field}') for name in names]


def test_foxglove_asks_with_fields_of_the_service() -> None:
    panel = json.loads((CONFIG / "foxglove.json").read_text())["configById"]["CallService!ask"]
    request = (ROOT / "msg" / "srv" / "AskImage.srv").read_text().partition("\n---")[0]
    fields = set(re.findall(r"^[\w/\[\]]+\s+([a-z]\w*)", request, re.MULTILINE))
    assert panel["serviceName"] == "/ask_image" and set(json.loads(panel["requestPayload"])) <= fields


def test_the_rviz_layout_shows_the_annotated_image() -> None:
    manager = yaml.safe_load((CONFIG / "mobilevlm.rviz").read_text())["Visualization Manager"]
    image = next(
        display for display in manager["Displays"] if display["Class"] == "rviz_default_plugins/Image"
    )
    assert image["Topic"]["Value"] == "/mobilevlm/annotated_image"


def test_the_world_for_gazebo_has_the_camera_of_its_launch_file() -> None:
    world = ElementTree.parse(CONFIG / "camera_world.sdf").getroot().find("world")
    assert world is not None
    sensor = world.find(".//sensor[@type='camera']")
    assert sensor is not None
    topic = sensor.findtext("topic")
    assert topic and f'"{topic}"' in (ROOT / "launch" / "gazebo.launch.py").read_text()
    plugins = {plugin.get("name") for plugin in world.iter("plugin")}
    assert "gz::sim::systems::Sensors" in plugins  # without it no camera renders
