# SPDX-License-Identifier: Apache-2.0
"""Messages as dictionaries and as text; needs ROS's messages, but no graph."""

from __future__ import annotations

import base64
import importlib
import json
import math
from typing import Any

import pytest
from builtin_interfaces.msg import Time
from mobilevlm_msgs import action, msg, srv
from mobilevlm_msgs.msg import CameraAnswer, Caption, Latency, Metrics, MonitorState, Status
from mobilevlm_msgs.srv import AskImage, ReloadBundle
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from mobilevlm_ros.client import as_dict, as_text

HEADER = Header(stamp=Time(sec=5, nanosec=500_000_000), frame_id="optical")


def all_messages() -> list[type]:
    """Each message of ours, and each part of a service or action."""
    kinds = [kind for kind in vars(msg).values() if isinstance(kind, type)]
    for kind in vars(srv).values():
        kinds += [kind.Request, kind.Response] if hasattr(kind, "Response") else []
    for kind in vars(action).values():
        kinds += [kind.Goal, kind.Result, kind.Feedback] if hasattr(kind, "Result") else []
    return kinds


def test_no_message_is_forgotten() -> None:
    names = {kind.__name__ for kind in all_messages()}
    assert {"SearchMemory_Response", "MemoryMatch", "TokenLogprob", "AskImage_Goal"} <= names


@pytest.mark.parametrize(
    "kind",
    [k for k in all_messages() if "status" in k.get_fields_and_field_types()],
    ids=lambda k: k.__name__,
)
def test_every_status_says_whether_it_is_ok(kind: Any) -> None:
    assert not kind().status.ok, "what nobody filled in is no success"
    assert kind(status=Status(code=Status.OK)).status.ok
    assert not kind(status=Status(code=Status.BUSY)).status.ok


@pytest.mark.parametrize("kind", all_messages(), ids=lambda kind: kind.__name__)
def test_every_message_becomes_json_without_losing_a_field(kind: Any) -> None:
    told = as_dict(kind())
    json.dumps(told, allow_nan=False)
    replaced = {"header": "frame_id", "status": "status", "choices": "choice_probabilities"}
    for field in kind.get_fields_and_field_types():
        assert {field, replaced.get(field, field)} & told.keys(), field


def test_a_response_says_its_status_stamp_and_odds() -> None:
    response = AskImage.Response(
        status=Status(code=Status.OK),
        header=HEADER,
        answer="yes",
        confidence=0.75,
        choices=["yes", "no"],
        choice_probabilities=[0.75, 0.25],
        latency=Latency(total=0.5),
        answers=[CameraAnswer(status=Status(code=Status.NO_FRAME, message="none"), camera="rear")],
    )
    told = as_dict(response)
    assert (told["status"], told["stamp"], told["frame_id"]) == ("OK", 5.5, "optical")
    assert told["choice_probabilities"] == {"yes": 0.75, "no": 0.25} and told["latency"]["total"] == 0.5
    (part,) = told["answers"]
    assert (part["status"], part["message"], part["camera"]) == ("NO_FRAME", "none", "rear")


def test_what_topics_say() -> None:
    picture = b"\xff\xd8\xff"
    state = MonitorState(
        header=HEADER,
        name="person",
        status=Status(code=Status.OK),
        probability=math.nan,
        state=MonitorState.RAISED,
        since=Time(sec=7),
        evidence=CompressedImage(format="jpeg", data=picture),
    )
    told = as_dict(state)
    assert (told["state"], told["since"], told["probability"], told["stamp"]) == ("RAISED", 7.0, None, 5.5)
    assert base64.b64decode(told["evidence"]["data"]) == picture
    assert as_dict(MonitorState())["evidence"] is None
    assert as_dict(Caption(text="A cone.", header=HEADER))["text"] == "A cone."
    metrics = as_dict(Metrics(total_p50=math.nan, utilization=0.5))
    assert metrics["total_p50"] is None and metrics["utilization"] == 0.5
    refused = ReloadBundle.Response(status=Status(code=Status.BUNDLE_ERROR, message="no such"))
    assert as_dict(refused)["status"] == "BUNDLE_ERROR"


def test_a_status_knows_whether_it_is_ok() -> None:
    importlib.import_module("mobilevlm_ros.client.client")
    assert AskImage.Response(status=Status(code=Status.OK)).status.ok
    codes = [value for name, value in vars(type(Status)).items() if name.isupper() and isinstance(value, int)]
    for code in {0, *range(10, 43), *codes} - {Status.OK}:
        assert not Status(code=code).ok


def test_text_for_people() -> None:
    refused = AskImage.Response(status=Status(code=Status.NO_FRAME, message="start the camera"))
    assert as_text(refused) == "NO_FRAME: start the camera"
    answered = AskImage.Response(status=Status(code=Status.OK), answer="A cone.", model_id="nano@1")
    assert as_text(answered).splitlines()[0] == "A cone." and "nano@1" in as_text(answered)
