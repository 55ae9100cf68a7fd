# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm ask`: what it is asked about, and which arguments go together. More is in test_cli.py and
client/test_client.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.arguments import with_negative_numbers
from mobilevlm_ros.cli import main
from mobilevlm_ros.commands.serving.picture_source import split_words
from mobilevlm_ros.commands.verbs import parser_of

Captured = pytest.CaptureFixture[str]
ROAD = Path(__file__).parents[3] / "docs" / "road.png"
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
        (["a.jpg", "b.jpg", "Is it?"], "two pictures"),
        (["photo.jpg", "Is it?", "--at", "3"], "it is for a video"),
        (["https://example.org/a.jpg", "Is it?"], "with --allow-url only"),
        (["--frames", "https://example.org/a.jpg", "b.jpg", "Is it?"], "with --allow-url only"),
        (["a.jpg", "Is it?", "--frames", "b.jpg", "c.jpg"], "a.jpg was given beside --frames"),
        (["--frames", "b.jpg", "c.jpg", "Is it?", "Or not?"], "two questions"),
        (["--ros", "Is it?", "--frames", "a.jpg", "b.jpg"], "give a number, how many frames"),
        (["photo.jpg", "Is it?", "--frame-interval", "1"], "--frame-interval is for a running node"),
        ([str(ROAD), "Is it?", "--top-logprobs", "2"], "top_logprobs is given without logprobs"),
        ([str(ROAD), "Is it?", "--answer-format", "regex"], "pattern"),
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
    assert capsys.readouterr().out.startswith("(abstained) the best guess ")
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
    assert told.out.startswith(
        "(abstained) the best guess 'An orange cone is on the left.' has confidence 1.00"
    )
    assert main([*asked, "0.5"]) == 0
    assert capsys.readouterr().out.startswith("An orange cone is on the left.\n")


def test_how_words_are_chosen(nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*options: str) -> str:
        assert main(["ask", str(ROAD), "Describe the scene.", "--bundle", str(nano), "-q", *options]) == 0
        return capsys.readouterr().out.strip()

    assert say("--stop", "and", "--stop", "cone") == "An orange"
    warm = [say("--temperature", "3", "--seed", seed) for seed in ("1", "1", "2")]
    assert warm[0] == warm[1] != warm[2]
    assert say("--temperature", "3", "--top-p", "0.01") == say()


CONE = "Is there a cone?"
YES_NO = ["--choices", "yes", "no"]


@pytest.mark.parametrize(
    "words",
    [
        [str(ROAD), CONE, *YES_NO],
        [CONE, str(ROAD), *YES_NO],
        [*YES_NO, str(ROAD), CONE],
        [*YES_NO, CONE, str(ROAD)],
        [str(ROAD), *YES_NO, CONE],
        [CONE, *YES_NO, str(ROAD)],
        [str(ROAD), "--threads", "1", CONE, *YES_NO],
        ["--threads", "1", *YES_NO, "--stream", str(ROAD), CONE],
    ],
    ids=str,
)
def test_words_and_options_come_in_any_order(words: list[str], nano: Path, capsys: Captured) -> None:
    assert main(["ask", "-q", "--bundle", "nano", *words]) == 0
    assert capsys.readouterr().out == "yes\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--frames", str(ROAD), "{other}", CONE, *YES_NO],
        ["--frames", str(ROAD), "{other}", *YES_NO, CONE],
        [CONE, *YES_NO, "--frames", str(ROAD), "{other}"],
        [*YES_NO, CONE, "--frames", str(ROAD), "{other}"],
    ],
    ids=str,
)
def test_several_pictures_in_one_question(
    words: list[str], any_bundle: Path, tmp_path: Path, capsys: Captured
) -> None:
    other = tmp_path / "dark.png"
    cv2.imwrite(str(other), np.zeros((90, 120, 3), np.uint8))
    asked = ["ask", "--json", "--bundle", str(any_bundle), *(word.format(other=other) for word in words)]
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    with MobileVLM(any_bundle) as vlm:
        expected = vlm.ask([ROAD, other], CONE, choices=["yes", "no"])
    assert told["choice_probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert told["prompt_tokens"] == expected.prompt_tokens


def test_what_was_said_and_how_probable_it_was(nano: Path, capsys: Captured) -> None:
    asked = ["ask", str(ROAD), "Is it day?", "--bundle", str(nano), "--json"]
    said = ["--history", "What is on the left?", "An orange cone is on the left."]
    assert main([*asked, *said, "--logprobs", "--top-logprobs", "2", "--pattern", "Yes|No"]) == 0
    told = json.loads(capsys.readouterr().out)
    with MobileVLM(nano) as vlm:
        chat = vlm.chat(ROAD)
        chat.ask("What is on the left?")
        expected = chat.ask("Is it day?", pattern="Yes|No", logprobs=True, top_logprobs=2)
    assert (told["answer"], told["session_turn"]) == (expected.text, 2)
    assert told["prompt_tokens"] == expected.prompt_tokens
    first = expected.logprobs[0]
    assert told["logprobs"][0]["text"] == first.text
    # The chat wrote the first answer token by token, which rounds differently.
    assert told["logprobs"][0]["logprob"] == pytest.approx(first.logprob, abs=0.1)
    assert told["logprobs"][0]["top_texts"] == [other.text for other in first.top]
    assert main([*asked[:-1], "--logprobs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  '") for line in lines) > 0


def test_choices_that_look_like_questions_stay_choices() -> None:
    assert split_words(["a.png", "Which?"], ["me?", "you?", "b.png"]) == (
        "a.png",
        "Which?",
        ["me?", "you?", "b.png"],
    )
    assert split_words([], ["yes", "no"]) == (None, None, ["yes", "no"])
    assert split_words(["Which?"], ["yes", "no"]) == (None, "Which?", ["yes", "no"])
    assert split_words(["cone.png", "box.png"], []) == ("cone.png", "box.png", [])


@pytest.mark.parametrize("question", ["​", "​ ﻿⁠", "­", "ㅤ", "⠀", "́", " \n "])
def test_what_nobody_sees_is_no_question(question: str, capsys: Captured) -> None:
    assert main(["ask", str(ROAD), question]) == 1
    assert "the question is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("minimum", "value"),
    [("-1e3", -1000.0), ("-5", -5.0), ("-.5", -0.5), ("-1E+2", -100.0), ("-1.5e-3", -0.0015)],
)
def test_negative_numbers_however_they_are_written(minimum: str, value: float) -> None:
    argv = with_negative_numbers(["a.png", "How cold?", "--minimum", minimum, "--maximum", "1e3"])
    args = parser_of("ask").parse_intermixed_args(argv)
    assert (args.minimum, args.maximum, args.words) == (value, 1000.0, ["a.png", "How cold?"])
