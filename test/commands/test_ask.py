# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm ask`: which arguments go together. More answers are in test_cli.py and nodes/test_client.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilevlm_ros.cli import main

ROAD = Path(__file__).parents[2] / "docs" / "road.png"
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


def test_formats_of_the_answer(nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llguidance")
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), np.full((90, 120, 3), 128, np.uint8))
    common = ["ask", str(picture), "How many objects are there?", "--bundle", str(nano)]
    assert main([*common, "--answer-format", "integer", "--maximum", "9", "--json"]) == 0
    assert 0 <= int(json.loads(capsys.readouterr().out)["answer"]) <= 9
    assert main([*common, "--answer-format", "integer", "--minimum", "9", "--maximum", "1"]) == 1
    assert "minimum 9 is not below maximum 1" in capsys.readouterr().err
    assert main([*common, "--choices", "a", "b", "--abstain-threshold", "1"]) == 0
    assert "abstained; the best guess is" in capsys.readouterr().err
    assert main([*common, "--choices", "a", "b", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["choice_probabilities"]) == {"a", "b"}
    schema = json.dumps(
        {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    )
    cut = ["--answer-format", "json", "--json-schema", schema, "--max-tokens", "3"]
    assert main([*common, *cut]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("{") and told.out.endswith("\n")  # the error begins a line of its own
    assert "not a complete json" in told.err


def test_a_withheld_answer_is_not_shown(nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ask", str(ROAD), "What is on the left?", "--bundle", str(nano), "--abstain-threshold"]
    assert main([*asked, "1"]) == 0
    told = capsys.readouterr()
    assert told.out == "" and "abstained; the best guess is 'An orange cone is on the left.'" in told.err
    assert main([*asked, "0.5"]) == 0
    assert capsys.readouterr().out == "An orange cone is on the left.\n"


def test_how_words_are_chosen(nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*options: str) -> str:
        assert main(["ask", str(ROAD), "Describe the scene.", "--bundle", str(nano), *options]) == 0
        return capsys.readouterr().out.strip()

    assert say("--stop", "and", "--stop", "cone") == "An orange"
    warm = [say("--temperature", "3", "--seed", seed) for seed in ("1", "1", "2")]
    assert warm[0] == warm[1] != warm[2]
    assert say("--temperature", "3", "--top-p", "0.01") == say()
