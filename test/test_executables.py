# SPDX-License-Identifier: Apache-2.0
"""The executables: without ROS they say what they need; arguments that a node does not know are refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from mobilevlm_ros import executables

NAMES = ["mobilevlm_node", "camera_node", "mobilevlm_client", "mobilevlm_demo"]
HAS_ROS = all(importlib.util.find_spec(name) for name in ("rclpy", "mobilevlm_msgs"))
needs_ros = pytest.mark.skipif(not HAS_ROS, reason="rclpy is not installed")

BLOCKED = """
import sys
from mobilevlm_ros import executables
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in executables.ROS_PACKAGES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.exit(getattr(executables, sys.argv[1])())
"""
RUN = """
import sys
from mobilevlm_ros import executables
name = sys.argv[1]
sys.argv[:] = [f"/usr/bin/{name}", *sys.argv[2:]]
sys.exit(getattr(executables, name)())
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ},
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_ros_each_says_what_it_needs(name: str) -> None:
    done = run(BLOCKED, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{name}: error: this needs ROS 2 (No module named ")
    assert "setup.bash" in done.stderr and "mobilevlm ask" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_scripts_lead_here() -> None:
    assert all(callable(getattr(executables, name)) for name in NAMES)


@needs_ros
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--bundle", "/data/v2"], "--ros-args -p bundle:=/data/v2"),
        (["--bundle=/data/v2"], "--ros-args -p bundle:=/data/v2"),
        (["--max-tokens", "5"], "--ros-args -p max_tokens:=5"),
        (["nano"], "unknown argument 'nano'"),
        (["--ros-args", "-p", "bundel:=nano"], "there is no parameter 'bundel' (did you mean bundle?)"),
        (["--ros-args", "-p", "mobilevlm:bundel:=nano"], "there is no parameter 'bundel'"),
        (["--ros-args", "--param", "x:=1", "--"], "there is no parameter 'x'"),
    ],
)
def test_a_node_refuses_what_it_does_not_know(arguments: list[str], what: str) -> None:
    done = run(RUN, "mobilevlm_node", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    usage, error = done.stderr.splitlines()
    assert usage.startswith("usage: mobilevlm_node ") and what in error
    assert error.endswith("`mobilevlm_node --help` lists the parameters")


@needs_ros
@pytest.mark.parametrize("name", ["mobilevlm_node", "camera_node"])
def test_a_node_explains_itself(name: str) -> None:
    done = run(RUN, name, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {name} ")
    assert ("monitors_file" in done.stdout) == (name == "mobilevlm_node")
    assert run(RUN, name, "--what").returncode == 2


@needs_ros
def test_parameters_of_rclpy_and_of_files_for_many_nodes_pass() -> None:
    from mobilevlm_ros.ros.node_arguments import check_arguments, undeclared

    argv = ["node", "--ros-args", "-p", "use_sim_time:=true", "-p", "qos_overrides./image.depth:=1"]
    assert check_arguments(argv, {"bundle": ""}) is None
    assert check_arguments(["node", "--ros-args", "-p", "anything:=1"], {}) is None
    assert undeclared(["bundle", "bundel", "use_sim_time"], ["bundle"]) == ["bundel"]
