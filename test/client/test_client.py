# SPDX-License-Identifier: Apache-2.0
"""The synchronous client and the command lines, in this process, against the real node."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from fixtures.pictures import turned
from mobilevlm_msgs.srv import AskImage
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Future

from mobilevlm_ros.cli import main as mobilevlm
from mobilevlm_ros.client import AskImageClient, exchange
from mobilevlm_ros.client import cli as client_cli
from mobilevlm_ros.errors import ImageError, NodeGone, QuestionError, RequestTimeout
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

PATIENT = ["--timeout", "60", "--wait-for-node", "60"]
ANY_AGE = ["--max-age", "-1", "--wait-for-frame", "20", *PATIENT]
Captured = pytest.CaptureFixture[str]


@contextlib.contextmanager
def serving(name: str, serve: Callable[[Any, Any], Any]) -> Iterator[Callable[[], None]]:
    """A server of AskImage on a thread of its own; gives what ends it."""
    context = Context()
    rclpy.init(context=context)
    server = rclpy.create_node("server", context=context)
    server.create_service(AskImage, name, serve, callback_group=ReentrantCallbackGroup())
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(server)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()

    def end() -> None:
        context.try_shutdown()
        thread.join()
        server.destroy_node()

    try:
        yield end
    finally:
        end()


def test_it_prints_answer_confidence_and_latency(node, capsys: Captured) -> None:
    assert client_cli.main(["What is on the left?", "--max-tokens", "8", *ANY_AGE]) == 0
    printed = capsys.readouterr().out
    assert "confidence 0." in printed or "confidence 1." in printed
    assert "encode" in printed and "onnxruntime" in printed


def test_json_holds_the_whole_response(node, capsys: Captured) -> None:
    assert client_cli.main(["Is it?", "--choices", "yes", "no", "--json", *ANY_AGE]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["status"] == "OK" and told["answer"] in ("yes", "no")
    assert set(told["choice_probabilities"]) == {"yes", "no"}
    assert told["frame_id"] == "camera_optical_frame" and told["stamp"] > 0
    assert set(told["latency"]) == {"queue", "encode", "prefill", "decode", "total"}


def test_a_refusal_is_printed_and_makes_the_exit_code(node, capsys: Captured) -> None:
    assert client_cli.main(["Is it?", "--camera", "rear", *PATIENT]) == 1
    assert capsys.readouterr().out.startswith("UNKNOWN_CAMERA: no camera 'rear'")


def test_options_for_the_form_and_for_what_was_said(node, photo: Path, capsys: Captured) -> None:
    asked = [
        "Is it day?",
        "--history",
        "What is on the left?",
        "A ball.",
        "--pattern",
        "Yes|No",
        "--logprobs",
    ]
    assert client_cli.main([*asked, "--top-logprobs", "2", "--json", *ANY_AGE]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] in ("Yes", "No") and told["session_turn"] == 0
    first = told["logprobs"][0]
    assert len(first["top_texts"]) == 2 and first["logprob"] <= 0
    assert client_cli.main([*asked, *ANY_AGE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  '")]) == len(told["logprobs"])
    for several in (["mobilevlm_client"], ["mobilevlm", "ask", "--ros"]):
        run = client_cli.main if len(several) == 1 else mobilevlm
        assert run([*several[1:], "Did it move?", "--frames", "2", *PATIENT]) == 1
        assert capsys.readouterr().out.startswith("UNSUPPORTED: the camera keeps its newest frame only")


def test_ask_ros_streams_what_it_would_print_at_once(node, photo: Path, capsys: Captured) -> None:
    """The same picture, sent along, whole and streamed."""
    question = ["--ros", "What is this?", str(photo), "--max-tokens", "12", *PATIENT]
    assert mobilevlm(["ask", *question, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert mobilevlm(["ask", *question, "--stream"]) == 0
    streamed = capsys.readouterr().out
    assert streamed.splitlines()[0] == told["answer"] != ""
    assert "confidence" in streamed.splitlines()[1]


def test_the_output_is_the_same_with_and_without_ros(node, nano: Path, capsys: Captured) -> None:
    road = str(Path(__file__).parents[2] / "docs" / "road.png")
    for question in (
        ["What is on the left?"],
        ["Is there a cone?", "--choices", "yes", "no"],
        ["What is on the left?", "--no-stream"],
        ["What is on the left?", "--abstain-threshold", "1"],
        ["What is on the left?", "-q"],
    ):
        told = []
        for way in ([], ["--ros", *PATIENT]):
            assert mobilevlm(["ask", road, *question, *way]) == 0
            told.append(capsys.readouterr().out.splitlines())
        here, there = told
        assert here[0] == there[0] != ""
        assert here[2:] == there[2:]
        for line, other in zip(here[1:2], there[1:2], strict=True):
            parts = [re.sub(r"\d+", "N", text.partition(")")[0]) for text in (line, other)]
            assert parts[0] == parts[1] and line.startswith("  confidence ")
            assert line.split(",")[0] == other.split(",")[0]


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_turned_photo_is_the_same_by_file_and_over_ros(
    node, nano: Path, kind: str, tmp_path: Path, capsys: Captured
) -> None:
    scene = observe(sample_scene(3), 0.0, 320, 240).image
    (tmp_path / "phone.jpg").write_bytes(turned(kind, 6, np.ascontiguousarray(np.rot90(scene, 1))))
    (tmp_path / "upright.jpg").write_bytes(turned(kind, 1, scene))
    said = []
    for name, *way in (["phone.jpg"], ["phone.jpg", "--ros", *PATIENT], ["upright.jpg"]):
        assert mobilevlm(["ask", str(tmp_path / name), "Describe the scene.", "-q", *way]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]


def test_several_pictures_over_ros(node, photo: Path, tmp_path: Path, capsys: Captured) -> None:
    for name in ("a.png", "b.png"):
        shutil.copy(photo, tmp_path / name)
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    assert mobilevlm(["ask", str(tmp_path), "Is it?", "--choices", "yes", "no", "--ros", *PATIENT]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].removeprefix(f"{tmp_path}/a.png: ") == lines[1].removeprefix(f"{tmp_path}/b.png: ")
    assert lines[2].startswith(f"{tmp_path}/c.jpg: INVALID_IMAGE: ")


@pytest.mark.parametrize("choices", [[], ["--choices", "yes", "no"]])
def test_without_a_node_the_command_says_so_at_once(choices: list[str], capsys: Captured) -> None:
    arguments = ["Is it?", *choices, "--namespace", "nobody", "--timeout", "600", "--wait-for-node", "0.2"]
    assert client_cli.main(arguments) == 1  # long before the timeout, or pytest's own ends it
    assert re.search("nothing serves /nobody/ask.* start mobilevlm_node", capsys.readouterr().err)


def test_ask_ros_of_every_camera(node, capsys: Captured) -> None:
    arguments = [
        "ask",
        "--ros",
        "Is it?",
        "--camera",
        "*",
        "--choices",
        "yes",
        "no",
        "--max-age",
        "-1",
        *PATIENT,
    ]
    assert mobilevlm(arguments) == 1  # nobody publishes 'silent'
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("NO_FRAME: ") and "see answers" in printed[0]
    assert printed[1].startswith("  camera: ") and printed[2].startswith("  photo: ")
    assert printed[4].startswith("  silent: NO_FRAME")


def test_without_a_node_it_says_what_to_start() -> None:
    with (
        AskImageClient("nobody/ask_image") as lonely,
        pytest.raises(RequestTimeout, match="start mobilevlm_node"),
    ):
        lonely.call(AskImage.Request(), timeout=0.1)


@pytest.mark.parametrize("count", ["0", "-5", "5000000000"])
def test_a_number_of_tokens_that_the_field_cannot_hold_is_refused(count: str, capsys: Captured) -> None:
    assert client_cli.main(["Is it?", "--max-tokens", count]) == 1
    assert f"max_tokens is {count}: give a number from 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a b", "1st", "a//b", "é"])
def test_a_namespace_that_cannot_be_is_refused(name: str, capsys: Captured) -> None:
    assert mobilevlm(["ask", "--ros", "Is it day?", "--namespace", name]) == 1
    assert f"{name!r} cannot be a namespace" in capsys.readouterr().err


def test_a_wait_that_cannot_be_is_refused_by_the_node(node, capsys: Captured) -> None:
    assert client_cli.main(["Is it?", *PATIENT, "--wait-for-frame", "-1"]) == 1
    assert capsys.readouterr().out.startswith("INVALID_PARAMETER: wait_for_frame is -1")


@pytest.mark.parametrize("picture", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_a_picture_that_is_no_rgb_is_refused_before_it_is_sent(picture: np.ndarray) -> None:
    with AskImageClient("nobody/ask_image") as client, pytest.raises(ImageError, match="uint8"):
        client.ask("Is it?", image=picture, timeout=0.1)


@pytest.mark.parametrize("field", ["choices", "stop"])
def test_one_text_is_no_list_of_texts(field: str) -> None:
    with (
        AskImageClient("nobody/ask_image") as client,
        pytest.raises(QuestionError, match=f"{field} is the one text 'car': give a list"),
    ):
        client.ask("Is it?", timeout=0.1, **{field: "car"})


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_without_a_limit_of_its_own_the_client_waits(timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "GRACE", 0.05)

    def serve(request: Any, response: Any) -> Any:
        time.sleep(0.3 if request.question else 0.0)  # longer than GRACE
        response.answer = f"{request.timeout:g}"
        return response

    with serving("slow/ask_image", serve), AskImageClient("slow/ask_image") as client:
        assert client.ask("really?", timeout=timeout).answer == f"{timeout:g}"


def test_a_node_that_ends_before_it_answers_is_noticed() -> None:
    """Without any limit of time too: the client raises instead of waiting for ever."""
    arrived = threading.Event()

    async def serve(request: Any, response: Any) -> Any:
        if request.question:
            arrived.set()
            await Future()  # for ever
        return response

    with serving("mortal/ask_image", serve) as end, AskImageClient("mortal/ask_image") as client:
        killer = threading.Thread(target=lambda: (arrived.wait(60.0), end()))
        killer.start()
        with pytest.raises(NodeGone, match="/mortal/ask_image ended before it answered"):
            client.ask("really?", timeout=-1.0)
        killer.join()


def test_responses_that_get_lost_at_first_cost_no_question() -> None:
    """A server that has not discovered its client yet drops its responses; this one drops two of them."""
    asked: list[str] = []

    async def serve(request: Any, response: Any) -> Any:
        asked.append(request.question)
        if len(asked) <= 2:
            await Future()  # for ever
        response.answer = request.question.upper()
        return response

    with serving("forgetful/ask_image", serve), AskImageClient("forgetful/ask_image") as client:
        assert client.ask("really?", timeout=60.0).answer == "REALLY?"
        assert client.ask("sure?", timeout=60.0).answer == "SURE?"
    assert [question for question in asked if question] == ["really?", "sure?"]
    assert asked.count("") >= 3
