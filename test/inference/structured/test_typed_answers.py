# SPDX-License-Identifier: Apache-2.0
"""Answers of a given format, through the assistant, from nano."""

import json
import math

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import IncompleteAnswer, OptionError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import Session
from mobilevlm_ros.inference.types import Answer, AnswerFormat, Frame, Request, SamplingParams
from mobilevlm_ros.simulation.questions import name
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene import KINDS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

pytest.importorskip("llguidance")

SCENES = range(7_200_000, 7_200_012)
COUNT = "How many objects are there?"
LIGHT = json.dumps(
    {
        "type": "object",
        "properties": {"light": {"enum": ["day", "dusk"]}, "objects": {"type": "integer", "minimum": 0}},
        "required": ["light", "objects"],
    }
)


@pytest.fixture(scope="module")
def assistant(runtime: Runtime, nano: object) -> Assistant:
    return Assistant(runtime)


@pytest.fixture(scope="module")
def observations() -> list[Observation]:
    return [observe(sample_scene(seed), 0.0, 320, 240) for seed in SCENES]


@pytest.mark.parametrize("form", ["integer", "number"])
@pytest.mark.parametrize("top", [0, 20])
def test_nano_counts(assistant: Assistant, observations: list[Observation], form: str, top: int) -> None:
    right = 0
    for seen in observations:
        answer = assistant.ask(
            Frame(seen.image), Request(COUNT, answer_format=AnswerFormat(form, maximum=top))
        )
        right += float(answer.text) == len(seen.seen)
        assert answer.finish_reason == "stop"
        assert 0 < answer.confidence <= 1
    assert right >= len(observations) - 1


def test_a_range_binds_even_when_the_truth_lies_outside(
    assistant: Assistant, observations: list[Observation]
) -> None:
    for seen in observations[:4]:
        answer = assistant.ask(
            Frame(seen.image), Request(COUNT, answer_format=AnswerFormat("integer", minimum=40, maximum=49))
        )
        assert 40 <= int(answer.text) <= 49


def test_every_choice_that_applies(assistant: Assistant, observations: list[Observation]) -> None:
    right = 0
    for seen in observations:
        there = sorted({name(s) for s in seen.seen})
        absent = [kind for kind in KINDS if kind not in {s.thing.kind for s in seen.seen}][:2]
        request = Request(
            "Which of these do you see?", choices=(*there, *absent), answer_format=AnswerFormat("choice_list")
        )
        answer = assistant.ask(Frame(seen.image), request)
        right += answer.text == (", ".join(there) or "none")
        assert answer.finish_reason == "choice"
        odds = answer.choice_probabilities
        assert len(odds) == len(request.choices)
        assert answer.confidence == pytest.approx(math.prod(max(p, 1 - p) for p in odds))
    assert right >= len(observations) - 2


def test_a_choice_list_is_a_question_for_each_choice(assistant: Assistant, frame: Frame) -> None:
    request = Request(
        "Is there a {}?", choices=("cone", "car", "ball"), answer_format=AnswerFormat("choice_list")
    )
    listed = assistant.ask(frame, request)
    alone = [
        assistant.ask(frame, Request(f"Is there a {choice}?", choices=("yes", "no"))).choice_probabilities[0]
        for choice in request.choices
    ]
    assert listed.choice_probabilities == pytest.approx(alone, abs=1e-3)
    chosen = [choice for choice, p in zip(request.choices, alone) if p >= 0.5]
    assert listed.text == (", ".join(chosen) or "none")


def test_a_choice_list_may_abstain(assistant: Assistant, frame: Frame) -> None:
    request = Request(
        "Is there a {}?",
        choices=("zebra", "yacht"),
        abstain_threshold=1.0,
        answer_format=AnswerFormat("choice_list"),
    )
    answer = assistant.ask(frame, request)
    assert answer.abstained and answer.text == "" and answer.best_guess


def test_json_conforms_and_streams_what_it_says(assistant: Assistant, frame: Frame) -> None:
    deltas: list[str] = []
    answer = assistant.ask(
        frame,
        Request("Describe.", answer_format=AnswerFormat("json", json_schema=LIGHT)),
        on_text=deltas.append,
    )
    document = json.loads(answer.text)
    assert document["light"] in ("day", "dusk") and document["objects"] >= 0
    assert "".join(deltas).strip() == answer.text


def test_json_that_max_tokens_cuts_is_an_error(assistant: Assistant, frame: Frame) -> None:
    request = Request(
        "Describe.",
        sampling=SamplingParams(max_tokens=5),
        answer_format=AnswerFormat("json", json_schema=LIGHT),
    )
    with pytest.raises(IncompleteAnswer, match="5 tokens"):
        assistant.ask(frame, request)


def test_max_tokens_may_be_exactly_enough(assistant: Assistant, frame: Frame) -> None:
    def ask(limit: int) -> Answer:
        return assistant.ask(
            frame,
            Request(COUNT, sampling=SamplingParams(max_tokens=limit), answer_format=AnswerFormat("integer")),
        )

    enough = ask(64)
    just = ask(enough.generated_tokens)
    assert (just.text, just.finish_reason) == (enough.text, "stop")
    assert just.confidence == pytest.approx(enough.confidence, abs=1e-6)
    if enough.generated_tokens > 1:
        with pytest.raises(IncompleteAnswer):
            ask(enough.generated_tokens - 1)


def test_a_schema_that_cannot_be_used_costs_no_encoding(runtime: Runtime, frame: Frame) -> None:
    fresh = Assistant(runtime)
    with pytest.raises(OptionError, match="greater than maximum"):
        fresh.ask(
            frame,
            Request(
                "?",
                answer_format=AnswerFormat("json", json_schema='{"type":"integer","minimum":5,"maximum":3}'),
            ),
        )
    assert fresh.ask(frame, Request(COUNT)).reused_tokens == 0


def test_typed_answers_are_remembered_in_a_conversation(assistant: Assistant, frame: Frame) -> None:
    session = Session("s")
    first = assistant.ask(frame, Request(COUNT, answer_format=AnswerFormat("integer")), session)
    listed = assistant.ask(
        frame,
        Request("Is there a {}?", choices=("cone", "car"), answer_format=AnswerFormat("choice_list")),
        session,
    )
    last = assistant.ask(frame, Request("What is on the left?"), session)
    assert [turn.answer for turn in session.turns] == [first.text, listed.text, last.text]
    assert (first.session_turn, listed.session_turn, last.session_turn) == (1, 2, 3)


def test_seeded_sampling_stays_within_the_format(assistant: Assistant, frame: Frame) -> None:
    said = {
        assistant.ask(
            frame,
            Request(
                COUNT,
                sampling=SamplingParams(temperature=2.0, seed=seed),
                answer_format=AnswerFormat("integer", minimum=-5, maximum=25),
            ),
        ).text
        for seed in range(12)
    }
    assert all(-5 <= int(text) <= 25 for text in said)
    assert np.std([int(text) for text in said]) > 0
