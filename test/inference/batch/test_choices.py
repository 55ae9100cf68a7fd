# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import QuestionError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Answer, Frame, Region, Request, SamplingParams

YES_NO = ("yes", "no")
MIXED = (
    Request("Is there a cone?", YES_NO),
    Request("Is the light red?", YES_NO, abstain_threshold=1.0),
    Request("Which is it?", ("a red traffic light", "a white ball", "red")),  # several tokens each
    Request("What is on the left?", sampling=SamplingParams(max_tokens=6)),
    Request("Is there a ball?", YES_NO, system_prompt="You see a road."),
    Request("Is there a person?", YES_NO, system_prompt="You see a road."),
    Request("Is it red?", YES_NO, region=Region(5, 5, 90, 60)),
    Request("Is it near?", YES_NO, region=Region(5, 5, 90, 60)),
    Request("Is there a cone?", YES_NO),
)


@pytest.fixture
def assistant(runtime: Runtime) -> Assistant:
    return Assistant(runtime)


def finish(assistant: Assistant, frame: Frame, requests: Sequence[Request]) -> tuple[list[Answer], int]:
    """Answers, and at how many boundaries the work could have been set aside."""
    steps, boundaries = assistant.steps_many(frame, requests), 0
    while True:
        try:
            assert next(steps) == ""
            boundaries += 1
        except StopIteration as end:
            return end.value, boundaries


@pytest.mark.parametrize("warm", [False, True])
def test_many_are_answered_as_one_by_one(assistant: Assistant, frame: Frame, warm: bool) -> None:
    alone = Assistant(assistant.runtime)
    if warm:
        assistant.ask(frame, MIXED[0])
    together, _ = finish(assistant, frame, MIXED)
    for one, expected in zip(together, (alone.ask(frame, request) for request in MIXED), strict=True):
        assert (one.text, one.best_guess) == (expected.text, expected.best_guess)
        assert (one.abstained, one.finish_reason) == (expected.abstained, expected.finish_reason)
        assert (one.prompt_tokens, one.generated_tokens) == (
            expected.prompt_tokens,
            expected.generated_tokens,
        )
        assert one.choice_probabilities == pytest.approx(expected.choice_probabilities, abs=1e-4)
        assert one.confidence == pytest.approx(expected.confidence, abs=1e-4)


def test_the_picture_is_encoded_and_read_once(assistant: Assistant, frame: Frame) -> None:
    questions = [Request(f"Is there a {thing}?", YES_NO) for thing in ("cone", "ball", "person", "car")]
    answers, boundaries = finish(assistant, frame, questions)
    assert boundaries > 2
    assert answers[0].reused_tokens == 0
    assert all(a.reused_tokens > assistant.runtime.vision.num_tokens for a in answers[1:])
    assert len({a.latency.encode for a in answers}) == 1  # everyone's share of one encode
    again, _ = finish(assistant, frame, questions)
    assert all(a.latency.encode == 0 and a.reused_tokens > 0 for a in again)


def test_no_questions_need_no_work(assistant: Assistant, frame: Frame) -> None:
    assert finish(assistant, frame, []) == ([], 0)


def test_one_question_that_cannot_be_asked_is_told_before_any_work(
    assistant: Assistant, frame: Frame
) -> None:
    with pytest.raises(QuestionError, match="only one choice"):
        next(assistant.steps_many(frame, [MIXED[0], Request("Is it?", ("yes",))]))


def test_work_that_is_given_up_leaves_the_others_right(
    assistant: Assistant, frame: Frame, other_frame: Frame
) -> None:
    _, boundaries = finish(Assistant(assistant.runtime), frame, MIXED)
    for stop in range(1, boundaries, 3):
        steps = assistant.steps_many(frame if stop % 2 else other_frame, MIXED)
        for _ in range(stop):
            next(steps, None)  # a picture that is known has fewer boundaries
        steps.close()
    together, _ = finish(assistant, frame, MIXED)
    expected, _ = finish(Assistant(assistant.runtime), frame, MIXED)
    assert [a.text for a in together] == [a.text for a in expected]


@pytest.mark.parametrize("request_", [MIXED[0], MIXED[3]])
def test_an_answer_less_sure_than_asked_is_withheld(
    assistant: Assistant, frame: Frame, request_: Request
) -> None:
    sure = assistant.ask(frame, request_)
    for threshold, abstains in ((sure.confidence - 1e-3, False), (min(1.0, sure.confidence + 1e-3), True)):
        answer = assistant.ask(frame, replace(request_, abstain_threshold=threshold))
        assert answer.abstained is abstains
        assert (answer.text, answer.best_guess) == (("", sure.text) if abstains else (sure.text, ""))
        assert answer.confidence == pytest.approx(sure.confidence, abs=1e-4)
