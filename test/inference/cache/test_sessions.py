# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import Busy, ContextOverflow, RequestCancelled
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import PROTECTED, Session, SessionLimits, SessionStore
from mobilevlm_ros.inference.choices.scoring import SHORT_ANSWER
from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.inference.types import Frame, Region, Request, SamplingParams
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question

FIRST = Request("What is on the left?", sampling=SamplingParams(max_tokens=12))
SECOND = Request("What colour is it?", sampling=SamplingParams(max_tokens=12))
YES_NO = Request("Is it red?", choices=("yes", "no"))
LOGITS = 0.1
"""Of log-probabilities down to -20: a token alone is read by another kernel than among others."""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def assistant(runtime: Runtime) -> Assistant:
    return Assistant(runtime)


def cancel_after(assistant: Assistant, frame: Frame, request: Request, session: Session, steps: int) -> None:
    boundaries = iter(range(steps))
    with pytest.raises(RequestCancelled):
        assistant.ask(frame, request, session, should_stop=lambda: next(boundaries, None) is None)


def test_a_conversation_is_the_template_read_from_scratch(
    assistant: Assistant, frame: Frame, from_scratch: Callable
) -> None:
    session = Session()
    said: list[tuple[str, str | None]] = []
    for request in (FIRST, SECOND):
        answer = assistant.ask(frame, request, session)
        said.append((request.question if said else image_question(request.question), answer.text))
    odds = assistant.ask(frame, YES_NO, session).choice_probabilities
    text = TEMPLATES["v1"].render([*said, (YES_NO.question + SHORT_ANSWER, None)])
    alone = Session()
    alone.turns = session.turns[:2]
    again = Assistant(assistant.runtime, prefix_budget=0).ask(frame, YES_NO, alone)
    assert again.reused_tokens == 0
    # The kept KV was read in other runs, which 8-bit activations round differently.
    assert odds == pytest.approx(again.choice_probabilities, abs=1e-3)
    # And on the logits themselves: the kept KV without its last token, which is read once more.
    assert session.sequence is not None and isinstance(session.sequence.prompt_tokens[-1], int)
    language, kept = assistant.runtime.language, session.sequence.cache.copy()
    kept.truncate(session.sequence.length - 1)
    last = language.embed(np.array(session.sequence.prompt_tokens[-1:], np.int64))
    np.testing.assert_allclose(
        log_softmax(language.forward(last[None], kept)[0, -1]),
        log_softmax(from_scratch(text, [frame.image])),
        atol=LOGITS,
    )


def test_a_follow_up_pays_for_its_own_words_only(assistant: Assistant, frame: Frame) -> None:
    session = Session()
    first = assistant.ask(frame, FIRST, session)
    second = assistant.ask(frame, SECOND, session)
    assert (first.session_turn, second.session_turn) == (1, 2)
    assert second.latency.encode == 0
    # All of the first prompt and of its answer, but for the token that was generated last and never read.
    assert second.reused_tokens >= first.prompt_tokens + first.generated_tokens - 1
    assert second.prompt_tokens > first.prompt_tokens + first.generated_tokens


def test_answers_in_a_session_depend_on_what_was_said(assistant: Assistant, frame: Frame) -> None:
    session = Session()
    session.turns = (Turn("What is on the left?", "A red car."),)
    other = Session()
    other.turns = (Turn("What is on the left?", "A white ball."),)
    odds = [assistant.ask(frame, YES_NO, s).choice_probabilities for s in (session, other)]
    assert odds[0] != odds[1]


def test_a_cancelled_turn_leaves_no_trace(assistant: Assistant, frame: Frame, other_frame: Frame) -> None:
    session, twin = Session(), Session()
    for conversation in (session, twin):
        assistant.ask(frame, FIRST, conversation)
    for steps in range(1, 6):
        cancel_after(assistant, frame, SECOND, session, steps)
    cancel_after(assistant, other_frame, replace(SECOND, region=Region(0, 0, 9, 9)), session, 2)
    assert (session.turns, session.frame, session.region) == (twin.turns, frame, None)
    assert session.answered == 1 and session.sequence is not None
    assert session.sequence.cache.length == session.sequence.length
    ours, expected = (assistant.ask(frame, SECOND, s) for s in (session, twin))
    assert (ours.text, ours.session_turn, ours.reused_tokens) == (expected.text, 2, expected.reused_tokens)


def test_a_new_frame_takes_the_place_of_the_old_one(
    assistant: Assistant, frame: Frame, other_frame: Frame, from_scratch: Callable
) -> None:
    session = Session()
    first = assistant.ask(frame, FIRST, session)
    moved = assistant.ask(other_frame, YES_NO, session)
    assert session.frame is other_frame and moved.session_turn == 2
    text = TEMPLATES["v1"].render(
        [(image_question(FIRST.question), first.text), (YES_NO.question + SHORT_ANSWER, None)]
    )
    tokens = [assistant.runtime.tokenizer.encode(word, bos=False)[0] for word in ("yes", "Yes", "no", "No")]
    shares = np.exp(log_softmax(from_scratch(text, [other_frame.image]))[tokens])
    assert moved.choice_probabilities[0] == pytest.approx(shares[:2].sum() / shares.sum(), abs=0.02)


def test_the_picture_of_the_question_before_keeps_its_region(assistant: Assistant, frame: Frame) -> None:
    region = Region(10, 20, 100, 80)
    session = Session()
    assistant.ask(frame, replace(FIRST, region=region), session)
    follow_up = assistant.ask(frame, SECOND, session)
    assert session.region == region and follow_up.latency.encode == 0
    height, width = frame.image.shape[:2]
    whole = assistant.ask(frame, replace(SECOND, region=Region(0, 0, width, height)), session)
    assert whole.latency.encode > 0
    # A copy of the frame is another frame: nothing is inherited.
    assistant.ask(replace(frame), replace(SECOND, region=region), session)
    assistant.ask(replace(frame), SECOND, session)
    assert session.region is None


def test_the_system_prompt_of_a_session_stays(assistant: Assistant, frame: Frame) -> None:
    session = Session()
    assistant.ask(frame, replace(FIRST, system_prompt="You see what a robot sees."), session)
    second = assistant.ask(frame, SECOND, session)
    assert session.system_prompt == "You see what a robot sees."
    assert second.reused_tokens > assistant.runtime.vision.num_tokens


def test_the_oldest_turns_are_forgotten_and_the_picture_is_kept(assistant: Assistant, frame: Frame) -> None:
    alone = assistant.ask(frame, FIRST).prompt_tokens
    session = Session(token_budget=alone + 80)
    answers = [assistant.ask(frame, SECOND, session) for _ in range(8)]
    assert all(a.prompt_tokens + a.generated_tokens <= session.token_budget for a in answers)
    assert sum(a.forgotten_turns for a in answers) == session.forgotten > 0
    assert [a.session_turn for a in answers] == list(range(1, 9))
    assert len(session.turns) + session.forgotten == 8
    assert all(a.reused_tokens > assistant.runtime.vision.num_tokens for a in answers[1:])
    again = Session(token_budget=session.token_budget)
    again.turns = session.turns
    one, other = assistant.ask(frame, YES_NO, session), Assistant(assistant.runtime).ask(frame, YES_NO, again)
    assert one.choice_probabilities == pytest.approx(other.choice_probabilities, abs=1e-4)


def test_a_budget_too_small_for_one_question_only_forgets(assistant: Assistant, frame: Frame) -> None:
    session = Session(token_budget=1)
    answers = [assistant.ask(frame, FIRST, session) for _ in range(2)]
    assert [a.text for a in answers] == [assistant.ask(frame, FIRST).text] * 2
    assert [a.session_turn for a in answers] == [1, 2]


def test_a_question_too_long_for_the_context_changes_nothing(assistant: Assistant, frame: Frame) -> None:
    assistant.max_question = 10**6
    session = Session()
    assistant.ask(frame, FIRST, session)
    with pytest.raises(ContextOverflow):
        assistant.ask(frame, Request("why " * assistant.runtime.language.max_length), session)
    assert assistant.ask(frame, SECOND, session).session_turn == 2


def test_a_session_answers_one_question_at_a_time(assistant: Assistant, frame: Frame) -> None:
    session = Session("kitchen")
    running = assistant.steps(frame, FIRST, session)
    next(running)
    with pytest.raises(Busy, match="'kitchen' is still answering"):
        assistant.ask(frame, SECOND, session)
    running.close()
    assert assistant.ask(frame, SECOND, session).session_turn == 1


def test_an_idle_session_is_forgotten_and_a_used_one_is_not(assistant: Assistant, frame: Frame) -> None:
    clock = Clock()
    store = SessionStore(SessionLimits(idle_seconds=60), clock=clock)
    for now in (0.0, 50.0, 100.0):
        clock.now = now
        turn = assistant.ask(frame, FIRST, store.get("a")).session_turn
    assert turn == 3
    clock.now = 161.0
    assert assistant.ask(frame, FIRST, store.get("a")).session_turn == 1
    clock.now = 300.0
    store.expire()
    assert len(store) == 0


def test_a_session_is_not_idle_while_it_answers(assistant: Assistant, frame: Frame) -> None:
    clock = Clock()
    store = SessionStore(SessionLimits(idle_seconds=60), clock=clock)
    running = assistant.steps(frame, FIRST, store.get("a"))
    next(running)
    clock.now = 100.0
    store.expire()
    assert "a" in store
    running.close()


def test_a_reset_begins_anew_and_does_not_disturb_the_answer_under_way(
    assistant: Assistant, frame: Frame
) -> None:
    store = SessionStore()
    assistant.ask(frame, FIRST, store.get("a"))
    running = assistant.steps(frame, SECOND, store.get("a"))
    next(running)
    assert assistant.ask(frame, FIRST, store.get("a", reset=True)).session_turn == 1
    with pytest.raises(StopIteration) as end:
        while True:
            next(running)
    assert end.value.value.session_turn == 2
    assert store.get("a").answered == 1


def test_the_least_recently_used_session_makes_room() -> None:
    store = SessionStore(SessionLimits(max_sessions=2))
    for name in ("a", "b", "a", "c"):
        store.get(name)
    assert ["a" in store, "b" in store, "c" in store] == [True, False, True]
    store.forget("a")
    store.forget("unknown")
    assert len(store) == 1
    store.forget()
    assert len(store) == 0


def test_whoever_begins_many_sessions_loses_his_own_and_not_everybodys() -> None:
    clock = Clock()
    store = SessionStore(SessionLimits(max_sessions=4), clock=clock)
    theirs = {name: store.get(name) for name in ("tour", "kitchen")}
    for number in range(16):
        store.get(f"flood {number}")
    assert len(store) == 4 and all(store.get(name) is session for name, session in theirs.items())
    clock.now += PROTECTED + 1  # nobody has used any since: the order of use decides again
    store.get("kitchen")
    for name in ("new", "newer", "newest"):
        store.get(name)
    assert "kitchen" in store and "tour" not in store


def test_any_thread_may_ask_which_camera_a_session_is_about(assistant: Assistant, frame: Frame) -> None:
    store = SessionStore()
    session = store.get("tour")
    assert store.camera("tour") is None and store.camera("unknown") is None
    for camera in ("front", "rear"):
        assistant.ask(replace(frame, camera=camera), YES_NO, session)
        assert store.camera("tour") == camera
    store.get("tour", reset=True)
    assert store.camera("tour") is None


def test_other_limits_hold_from_the_next_session_on() -> None:
    store = SessionStore()
    assert [store.get(name).token_budget for name in "abc"] == [1024] * 3
    assert store.get("d", limits=SessionLimits(max_sessions=2, token_budget=64)).token_budget == 64
    assert len(store) == 2 and "d" in store
    assert store.get("e").token_budget == 64


def test_beyond_the_byte_budget_a_session_loses_its_kv_and_answers_the_same(
    assistant: Assistant, frame: Frame
) -> None:
    measure = Session()
    assistant.ask(frame, FIRST, measure)
    budget = 2 * measure.nbytes
    store = SessionStore(SessionLimits(byte_budget=budget))
    for name in "abc":
        assistant.ask(frame, FIRST, store.get(name))
    assert store.nbytes <= budget
    assert [store.get(name).sequence is None for name in "abc"] == [True, False, False]
    lost, kept = (assistant.ask(frame, SECOND, store.get(name)) for name in "ab")
    assert (lost.text, lost.session_turn) == (kept.text, 2)
    assert lost.confidence == pytest.approx(kept.confidence, rel=1e-3)


@pytest.mark.parametrize(
    "bad", [{"max_sessions": -1}, {"idle_seconds": 0}, {"token_budget": 0}, {"byte_budget": -1}]
)
def test_a_store_that_could_hold_nothing_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SessionLimits(**bad)
