# SPDX-License-Identifier: Apache-2.0
"""Conversations, system prompts and presets, over DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mobilevlm_msgs.msg import Status
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters

from mobilevlm_ros.inference.prompt.presets import load_presets
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

Ask = Callable[..., Any]
PRESETS = load_presets(Path(__file__).parents[3] / "config" / "presets.yaml")
YES_NO = {"choices": ["yes", "no"]}


@pytest.fixture
def set_parameter(graph: Any, node: Any) -> Iterator[Callable[[str, Any], str]]:
    """Set one, get the reason why not ('' when it is set); what was set is put back afterwards."""
    undo: dict[str, Any] = {}

    def put(name: str, value: Any, default: Any = None) -> str:
        if isinstance(value, int):
            told = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)
        else:
            told = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=told)])
        if default is not None:
            undo[name] = default
        return str(graph.call(SetParameters, "/mobilevlm/set_parameters", request).results[0].reason)

    yield put
    for name, value in undo.items():
        assert put(name, value) == ""


def test_a_follow_up_is_about_the_same_picture_and_pays_only_for_itself(ask: Ask) -> None:
    first = ask("What is on the left?", session="walk")
    second = ask("Is there a cone?", session="walk")
    assert (first.session_turn, second.session_turn) == (1, 2)
    assert second.header == first.header and second.camera == first.camera
    assert second.latency.encode == 0
    assert second.cached_tokens >= first.prompt_tokens  # the first question and the picture, at least


def test_new_frame_goes_on_with_a_newer_picture(graph, ask: Ask) -> None:
    first = ask("What is on the left?", session="newer", max_tokens=2)

    def newer() -> bool:
        later = ask("And now?", session="newer", new_frame=True, max_tokens=2)
        return later.session_turn >= 2 and later.header.stamp != first.header.stamp

    graph.until(newer, "an answer about a newer frame")


def test_a_reset_forgets(ask: Ask) -> None:
    ask(session="short", max_tokens=2)
    assert ask(session="short", max_tokens=2).session_turn == 2
    assert ask(session="short", max_tokens=2, reset_session=True).session_turn == 1


def test_another_camera_is_another_picture(ask: Ask) -> None:
    ask(session="two", max_tokens=2)
    there = ask(session="two", camera="photo", max_tokens=2)
    assert there.status.code == Status.OK, there.status
    assert (there.header.frame_id, there.session_turn) == ("photo_optical_frame", 2)
    back = ask(session="two", max_tokens=2)  # names no camera: the picture of the question before
    assert back.header == there.header and back.camera == "photo"


def test_a_conversation_about_a_picture_that_was_sent(ask: Ask, seed: int) -> None:
    picture = observe(sample_scene(seed), 1.0, 160, 120).image
    first = ask("Is there a cone?", image=picture, session="sent", **YES_NO)
    second = ask("Is there a cone?", session="sent", **YES_NO)
    assert second.latency.encode == 0 and second.session_turn == 2
    assert second.header == first.header


def test_without_a_session_nothing_is_remembered(ask: Ask) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    first, second = (ask("Is there a cone?", image=picture, **YES_NO) for _ in range(2))
    assert first.prompt_tokens == second.prompt_tokens and second.session_turn == 0


def test_a_session_may_be_refused(ask: Ask, set_parameter) -> None:
    assert set_parameter("sessions_max", 0, default=16) == ""
    refused = ask(session="none")
    assert refused.status.code == Status.UNSUPPORTED and "sessions_max" in refused.status.message


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"reset_session": True}, "reset_session"),
        ({"session": "x" * 500}, "session"),
        *(({"session": f"two{end}lines"}, "session") for end in "\n\r\t\x01\x1f\x7f\x85\u2028\u2029\u200b"),
        ({"session": "tour\n"}, "session"),
        ({"preset": "pirate"}, "'driving'"),
        ({"preset": "driving", "system_prompt": "Be brief."}, "preset"),
    ],
)
def test_what_contradicts_itself_or_is_unknown(ask: Ask, fields: dict, what: str) -> None:
    refused = ask(**fields)
    assert refused.status.code in (Status.INVALID_PARAMETER, Status.INVALID_QUESTION)
    assert what in refused.status.message


def test_a_preset_is_its_text(ask: Ask) -> None:
    picture = np.full((32, 32, 3), 90, np.uint8)
    plain, named, written = (
        ask("Is there a cone?", image=picture, **YES_NO, **fields)
        for fields in ({}, {"preset": "driving"}, {"system_prompt": PRESETS["driving"].system_prompt})
    )
    assert named.prompt_tokens == written.prompt_tokens != plain.prompt_tokens
    assert named.choice_probabilities == pytest.approx(written.choice_probabilities, abs=1e-5)


def test_a_preset_for_the_whole_node(ask: Ask, set_parameter) -> None:
    picture = np.full((32, 32, 3), 90, np.uint8)
    named = ask("Is there a cone?", image=picture, preset="inspection", **YES_NO)
    assert set_parameter("preset", "inspection", default="") == ""
    default = ask("Is there a cone?", image=picture, **YES_NO)
    assert default.prompt_tokens == named.prompt_tokens
    assert "'domestic'" in set_parameter("preset", "pirate")
    assert "leave one" in set_parameter("system_prompt", "Be brief.")
