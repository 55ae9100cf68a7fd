# SPDX-License-Identifier: Apache-2.0
"""The examples that need no ROS, run as their first lines say."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_plain_python_answers_in_every_way(nano: Path) -> None:
    program = [sys.executable, "examples/plain.py", "docs/road.png", str(nano)]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line)
    assert lines["left"].strip() == "An orange cone is on the left."
    likely = re.match(r"no \(yes (\d+\.\d)%\)", lines["person"])
    assert likely and float(likely[1]) < 10
    assert lines["scene"] == "An orange cone on the left and a green ball ahead."
    assert "many" in lines and "chat" in lines


def test_without_a_picture_it_says_how_to_call_it() -> None:
    program = [sys.executable, "examples/plain.py"]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and "python examples/plain.py docs/road.png" in result.stderr
