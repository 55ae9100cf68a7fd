# SPDX-License-Identifier: Apache-2.0
"""The command line client, in this process, against the real node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mobilevlm_ros.errors import RequestTimeout
from mobilevlm_ros.nodes import client
from mobilevlm_ros.nodes.client import AskImageClient

ANY_AGE = ["--max-age", "-1", "--timeout", "60"]


def test_it_prints_answer_confidence_and_latency(node, ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask().status.code == 1  # there is a frame now
    assert client.main(["What is on the left?", "--max-tokens", "8", *ANY_AGE]) == 0
    printed = capsys.readouterr().out
    assert "confidence 0." in printed or "confidence 1." in printed
    assert "encode" in printed and "onnxruntime" in printed


def test_json_holds_the_whole_response(node, ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask().status.code == 1
    assert client.main(["Is it?", "--choices", "yes", "no", "--json", *ANY_AGE]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["status"] == "OK" and told["answer"] in ("yes", "no")
    assert set(told["choice_probabilities"]) == {"yes", "no"}
    assert told["frame_id"] == "camera_optical_frame" and told["stamp"] > 0
    assert set(told["latency"]) == {"queue", "encode", "prefill", "decode", "total"}


def test_a_refusal_is_printed_and_makes_the_exit_code(node, capsys: pytest.CaptureFixture[str]) -> None:
    assert client.main(["Is it?", "--camera", "rear"]) == 1
    assert capsys.readouterr().out.startswith("UNKNOWN_CAMERA: no camera 'rear'")


def test_without_a_node_it_says_what_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        AskImageClient("nobody/ask_image") as lonely,
        pytest.raises(RequestTimeout, match="start mobilevlm_node"),
    ):
        lonely.call(None, timeout=0.1)
