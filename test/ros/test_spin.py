# SPDX-License-Identifier: Apache-2.0
"""How a node's process ends; `test_node_lifecycle` sends it signals in every state."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAVES = """
import os, signal, sys, weakref
from mobilevlm_ros.ros import spin as running
from mobilevlm_ros.nodes.mobilevlm_node import MobileVLMNode

references = []

def make():
    node = MobileVLMNode("leaving")
    node.create_timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    references.append(weakref.ref(node))
    return node

code = running.run(make, ["--ros-args", "-p", "threads:=1", "-p", "bundle:=" + sys.argv[1]])
print("code", code, "left", references[0]() is None)
"""


def test_nothing_of_the_node_is_left_when_the_process_ends(any_bundle: Path) -> None:
    """Else DDS does not tell the others that it goes, and they send it requests for another 20 s."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, str(any_bundle)], capture_output=True, text=True, timeout=120
    )
    assert "code 0 left True" in done.stdout, done.stdout + done.stderr
    assert "active: ask on /ask_image" in done.stdout + done.stderr


SUPERVISED = """
import ctypes, os, signal, sys, threading, time
import rclpy.node
from mobilevlm_ros.ros import spin

class Robot(rclpy.node.Node):
    busy = False
    callback_faults = 0
    hang_timeout = 0.5
    stuck_seconds = 0.0
    in_transition = False

    def __init__(self):
        super().__init__("robot")
        self.create_timer(0.02, self.act)
        self.count = 0

    def close(self, timeout):
        print("faults", self.callback_faults, flush=True)
        return True

    def act(self):
        self.count += 1
        {act}

sys.exit(spin.run(Robot, []))
"""


def supervised(act: str) -> subprocess.CompletedProcess[str]:
    """A node's process whose timer does something; its end."""
    code = SUPERVISED.replace("{act}", act.replace("\n", "\n        "))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


TERM = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.parametrize(
    "fault", ["ValueError(1)", "SystemExit(5)", "KeyboardInterrupt()", "BaseException(2)"]
)
def test_only_a_signal_ends_a_node(fault: str) -> None:
    """Whatever a callback raises is logged and counted."""
    done = supervised(f"if self.count == 3: {TERM}\nif self.count < 3: raise {fault}")
    assert done.returncode == 0 and "faults 2" in done.stdout, done.stderr
    assert done.stderr.count("a callback failed") + done.stdout.count("a callback failed") == 2


@pytest.mark.parametrize(
    ("act", "code", "told"),
    [
        ("time.sleep(1000)", 70, "the executor has run nothing for"),
        ("self.stuck_seconds = 9.0", 70, "the model has made no progress for 9 s"),
        ("ctypes.PyDLL(None).sleep(1000)", 1, "Timeout ("),  # holds Python's lock: no thread of Python runs
    ],
)
def test_a_node_that_hangs_ends_itself_and_says_where(act: str, code: int, told: str) -> None:
    done = supervised(act)
    assert done.returncode == code, done.stderr
    assert (told in done.stderr and "in act" in done.stderr) or ("stuck" in act and told in done.stderr)


@pytest.mark.parametrize("exempt", ["self.in_transition = True", "self.hang_timeout = 0"])
def test_what_may_take_long_is_no_hang(exempt: str) -> None:
    done = supervised(f"{exempt}\nif self.count == 1: time.sleep(2)\nelse: {TERM}")
    assert done.returncode == 0, done.stderr


def camera_node(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mobilevlm_ros.nodes.camera_node", *args],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_unknown_names_in_a_file_are_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    photoo: x.png\n    wheels: 4\n    photo: /no/such.png\n")
    act = f"if self.count == 1: self.get_logger().info('up')\n{TERM}"
    code = SUPERVISED.replace("{act}", act.replace("\n", "\n        "))
    code = code.replace(
        "spin.run(Robot, [])", f"spin.run(Robot, ['--ros-args', '--params-file', {str(file)!r}])"
    )
    code = code.replace("self.count = 0", "self.count = 0; self.declare_parameter('photo', '')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    told = done.stdout + done.stderr
    assert "there is no parameter 'photoo' (did you mean photo?): it is ignored" in told
    assert "there is no parameter 'wheels': it is ignored" in told and told.count("no parameter") == 2


def test_a_missing_security_enclave_is_a_sentence(tmp_path: Path) -> None:
    secure = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}
    done = camera_node(ROS_SECURITY_KEYSTORE=str(tmp_path), **secure)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot start: ROS security is switched on" in done.stderr and str(tmp_path) in done.stderr
