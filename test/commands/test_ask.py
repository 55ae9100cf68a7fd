# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm ask`: which arguments go together. What it answers is in test_cli.py and nodes/test_client.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main

WITHOUT_ROS = """
import sys
sys.modules["rclpy"] = sys.modules["mobilevlm_msgs"] = None
from mobilevlm_ros.cli import main
sys.exit(main(["ask", "--ros", "Is the door open?"]))
"""


def test_without_ros_it_says_what_to_source() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_ROS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("mobilevlm: error: --ros needs ROS 2") and "setup.bash" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["photo.jpg", "Is it?", "--camera", "front"], "--camera is for a running node"),
        (["photo.jpg", "Is it?", "--wait-for-frame", "1"], "--wait-for-frame is for a running node"),
        (["photo.jpg", "Is it?", "--ros", "Is it?"], "two questions"),
        (["--ros", "Is it?", "--bundle", "nano"], "--bundle does not go with --ros"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", *arguments]) == 1
    assert what in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["photo.jpg"]])
def test_without_ros_picture_and_question_are_required(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        main(["ask", *arguments])
    assert error.value.code == 2
