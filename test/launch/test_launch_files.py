# SPDX-License-Identifier: Apache-2.0
"""The launch files, through the real `launch` where it is installed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


@pytest.mark.parametrize("name", sorted(path.name for path in LAUNCH.glob("*.launch.py")))
def test_every_argument_is_described(description: Callable[[str], Any], name: str) -> None:
    for argument in description(name).get_launch_arguments():
        assert len(argument.description) > 10, argument.name
        assert argument.default_value is not None, argument.name


def test_the_simulation_answers(description: Callable[[str], Any], tmp_path: Path) -> None:
    packages = pytest.importorskip("ament_index_python.packages")
    try:
        packages.get_package_share_directory("mobilevlm_ros")
    except packages.PackageNotFoundError:
        pytest.skip("mobilevlm_ros is not installed where ros2 launch would find it")
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchDescription, LaunchService
    from mobilevlm_ros.nodes.client import AskImageClient

    source = PythonLaunchDescriptionSource(str(LAUNCH / "simulation.launch.py"))
    arguments = {"seed": "1", "rate": "5.0", "respawn": "false"}
    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments.items())])
    )
    answers: list[Any] = []

    def ask() -> None:
        try:
            with AskImageClient() as client:
                answers.append(client.ask("Is it day?", timeout=90.0, wait_for_frame=60.0))
        finally:
            service.shutdown(force_sync=False)

    thread = threading.Thread(target=ask)
    thread.start()
    assert service.run() == 0
    thread.join()
    assert answers[0].status.code == 1, answers[0].status.message
    assert answers[0].header.frame_id == "camera_optical_frame"


def test_the_parameter_file_names_every_parameter_with_its_default() -> None:
    parameters = pytest.importorskip("mobilevlm_ros.nodes.parameters", reason="rclpy is not installed")
    text = (LAUNCH.parent / "config" / "nano.yaml").read_text()
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert values == {spec.name: spec.default for spec in parameters.SPECS}
