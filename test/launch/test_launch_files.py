# SPDX-License-Identifier: Apache-2.0
"""The launch files, through the real `launch` where it is installed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import yaml

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


@pytest.mark.parametrize("name", sorted(path.name for path in LAUNCH.glob("*.launch.py")))
def test_every_argument_is_described(description: Callable[[str], Any], name: str) -> None:
    for argument in description(name).get_launch_arguments():
        assert len(argument.description) > 10, argument.name
        assert argument.default_value is not None, argument.name


def actions(description: Any, kind: type) -> list[Any]:
    return [entity for entity in description.entities if isinstance(entity, kind)]


def test_gazebo_is_bridged_and_its_clock_used(description: Callable[[str], Any]) -> None:
    made = description("gazebo.launch.py")
    from launch.actions import ExecuteProcess, IncludeLaunchDescription
    from launch_ros.actions import Node

    included = dict(actions(made, IncludeLaunchDescription)[0].launch_arguments)
    assert included["use_sim_time"] == "true" and "image" in included
    assert [node.node_package for node in actions(made, Node)] == ["ros_gz_bridge"]
    assert len(actions(made, ExecuteProcess)) == 2  # gz, and the bridge, which is one too


def test_the_simulation_has_two_cameras_and_rviz_on_request(description: Callable[[str], Any]) -> None:
    made = description("simulation.launch.py")
    from launch.actions import OpaqueFunction
    from launch_ros.actions import Node

    from launch import LaunchContext

    context = LaunchContext()
    for argument in made.get_launch_arguments():
        context.launch_configurations[argument.name] = ""
    for given, count in (("front,rear", 2), ("left", 1), ("a,b,c", 3)):
        context.launch_configurations.update(cameras=given, seed="0")
        (function,) = actions(made, OpaqueFunction)
        nodes = function.execute(context)
        assert [node.node_executable for node in nodes] == ["camera_node"] * count
    (rviz,) = actions(made, Node)
    assert rviz.node_executable == "rviz2" and rviz.condition is not None


@pytest.fixture
def installed(description: Callable[[str], Any]) -> None:
    """Skips a test where `ros2 launch` would not find this package."""
    packages = pytest.importorskip("ament_index_python.packages")
    try:
        packages.get_package_share_directory("mobilevlm_ros")
    except (LookupError, OSError):  # OSError: no ROS is sourced
        pytest.skip("mobilevlm_ros is not installed where ros2 launch would find it")


def test_the_simulation_answers(installed: None) -> None:
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchDescription, LaunchService
    from mobilevlm_ros.client.client import AskImageClient

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
                for camera in ("", "rear"):
                    answers.append(client.ask("Is it day?", camera=camera, timeout=90.0, wait_for_frame=60.0))
        finally:
            service.shutdown(force_sync=False)

    thread = threading.Thread(target=ask)
    thread.start()
    assert service.run() == 0
    thread.join()
    assert [answer.status.code for answer in answers] == [1, 1], answers[0].status.message
    assert answers[0].header.frame_id == "front_optical_frame"
    assert answers[1].header.frame_id == "rear_optical_frame"


LAUNCH_AND_WAIT = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService()
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source)]))
service.run()
"""


def runs(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], Any]) -> Any:
    """The value of a condition, once it holds."""
    end = monotonic() + 60.0
    while not (value := condition()):
        assert monotonic() < end
        sleep(0.02)
    return value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_no_node_outlives_its_launch(installed: None, number: signal.Signals) -> None:
    command = [sys.executable, "-c", LAUNCH_AND_WAIT, str(LAUNCH / "simulation.launch.py")]
    with subprocess.Popen(command, start_new_session=True) as launch:
        children = Path(f"/proc/{launch.pid}/task/{launch.pid}/children")
        nodes = eventually(lambda: len(found := children.read_text().split()) == 3 and found)
        launch.send_signal(number)
        launch.wait(60)
    eventually(lambda: not any(runs(int(pid)) for pid in nodes))


def test_the_parameter_file_names_every_parameter_with_its_default() -> None:
    parameters = pytest.importorskip(
        "mobilevlm_ros.nodes.parameters.parameters", reason="rclpy is not installed"
    )
    text = (LAUNCH.parent / "config" / "nano.yaml").read_text()
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert values == {spec.name: spec.default for spec in parameters.SPECS}
