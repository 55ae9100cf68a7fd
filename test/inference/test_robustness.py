# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong, the error says so and the next request is answered."""

import gc
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import ContextOverflow, EngineError, OptionError, RequestCancelled, RequestTimeout
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import Session, SessionLimits, SessionStore
from mobilevlm_ros.inference.types import Frame, Request, SamplingParams

ASKED = Request("What is on the left?", sampling=SamplingParams(max_tokens=12))
YES_NO = Request("Is it red?", choices=("yes", "no", "a red car"))


class Flaky:
    """An engine whose named method fails at its n-th call, and works otherwise."""

    def __init__(self, engine: Any, method: str, fail: Callable[[Any], Any], at: int = 1) -> None:
        self._engine, self._method, self._fail, self.left = engine, method, fail, at

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._engine, name)
        if name != self._method:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            return self._fail(lambda: real(*args, **kwargs)) if self.left == 0 else real(*args, **kwargs)

        return call


def driver_gone(_: Any) -> None:
    raise EngineError("the device disappeared")


def out_of_memory(_: Any) -> None:
    raise MemoryError("Unable to allocate 64. MiB")


def not_numbers(real: Callable[[], Any]) -> Any:
    found = real()
    return [part * np.nan for part in found] if isinstance(found, list) else found * np.nan


def infinite(real: Callable[[], Any]) -> Any:
    found = real()
    return [part + np.inf for part in found] if isinstance(found, list) else found + np.inf


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


@pytest.mark.parametrize("fail", [driver_gone, out_of_memory, not_numbers, infinite])
@pytest.mark.parametrize(
    ("engine", "method", "at"),
    [
        ("vision", "encode", 1),
        ("language", "forward", 1),
        ("language", "forward", 3),
        ("language", "branch", 1),
    ],
)
@pytest.mark.parametrize("request_", [ASKED, YES_NO])
def test_an_engine_that_fails_is_told_and_the_next_request_is_answered(
    runtime: Runtime,
    frame: Frame,
    engine: str,
    method: str,
    at: int,
    fail: Callable[[Any], Any],
    request_: Request,
) -> None:
    flaky = replace(runtime, **{engine: Flaky(getattr(runtime, engine), method, fail, at)})
    assistant, session = Assistant(flaky), Session()
    try:
        assistant.ask(frame, request_, session)  # choices need fewer calls than a text: it may be fine
    except EngineError:
        assert (session.turns, session.answered, session.busy) == ((), 0, False)
        session = Session()
        assistant.ask(frame, request_, session)
    expected = Assistant(runtime)
    assert assistant.ask(frame, request_).text == expected.ask(frame, request_).text
    first = expected.ask(frame, request_, again := Session())
    assert session.turns[0].answer == first.text
    follow_up = assistant.ask(frame, ASKED, session)
    assert follow_up.text == expected.ask(frame, ASKED, again).text


@pytest.mark.parametrize("at", range(1, 6))
def test_a_session_survives_an_engine_that_fails_in_its_second_turn(
    runtime: Runtime, frame: Frame, at: int
) -> None:
    language = Flaky(runtime.language, "forward", driver_gone, at=10**9)
    assistant, session = Assistant(replace(runtime, language=language)), Session()
    assistant.ask(frame, ASKED, session)
    language.left = at
    with pytest.raises(EngineError, match="disappeared"):
        assistant.ask(frame, replace(ASKED, sampling=SamplingParams(max_tokens=12, stop=("never",))), session)
    expected = Session()
    untouched = Assistant(runtime)
    untouched.ask(frame, ASKED, expected)
    answers = [a.ask(frame, YES_NO, s) for a, s in ((assistant, session), (untouched, expected))]
    assert answers[0].choice_probabilities == pytest.approx(answers[1].choice_probabilities, abs=1e-4)
    assert [a.session_turn for a in answers] == [2, 2]


def test_memory_that_runs_out_gives_back_the_kept_pictures(runtime: Runtime, frame: Frame) -> None:
    language = Flaky(runtime.language, "forward", out_of_memory, at=10**9)
    assistant = Assistant(replace(runtime, language=language))
    assistant.ask(frame, ASKED)
    language.left = 1
    with pytest.raises(EngineError, match="memory ran out"):
        assistant.ask(frame, YES_NO)
    assert assistant.ask(frame, YES_NO).reused_tokens == 0


def test_no_tokens_are_refused(runtime: Runtime, frame: Frame) -> None:
    with pytest.raises(OptionError, match="max_tokens is 0: give a number from 1"):
        Assistant(runtime).ask(frame, Request("What is it?", sampling=SamplingParams(max_tokens=0)))


def test_a_prompt_and_its_longest_choice_must_fit(runtime: Runtime, frame: Frame) -> None:
    assistant = Assistant(runtime, max_question=10**6)
    words = runtime.language.max_length
    while True:
        try:
            assistant.ask(frame, Request("a " * words, choices=("yes", "no")))
            break
        except ContextOverflow:
            words -= 1
    with pytest.raises(ContextOverflow, match="shorten the question or the choices"):
        assistant.ask(frame, Request("a " * words, choices=("yes", "no, " * 40)))
    assert assistant.ask(frame, ASKED).text


def test_a_prefill_is_cut_into_runs_where_it_can_be_cancelled(runtime: Runtime, frame: Frame) -> None:
    assistant = Assistant(runtime)
    boundaries = 0
    with pytest.raises(RequestTimeout):

        def expire() -> bool:
            nonlocal boundaries
            boundaries += 1
            if boundaries == 4:  # the start, the picture, the system prompt, a part of the image
                raise RequestTimeout("too late")
            return False

        assistant.ask(frame, replace(ASKED, question="why " * 200), should_stop=expire)
    assert assistant.ask(frame, ASKED).latency.encode == 0  # what was done is not lost


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_thousand_cancels_leave_memory_flat(runtime: Runtime, frame: Frame, other_frame: Frame) -> None:
    assistant = Assistant(runtime, prefix_budget=1 << 20)
    store = SessionStore(SessionLimits(max_sessions=3, byte_budget=2 << 20))
    kind = type(runtime.language.new_cache(1, 1))
    chance = random.Random(0)
    requests = (
        ASKED,
        YES_NO,
        replace(ASKED, system_prompt="You see a road."),
        replace(ASKED, sampling=SamplingParams(max_tokens=30)),
    )
    assistant.ask(frame, ASKED)
    before, floor = alive(kind), 0
    for round_ in range(1000):
        picture, request = chance.choice((frame, other_frame)), chance.choice(requests)
        left = chance.randrange(12)
        try:
            if chance.random() < 0.3:
                steps = assistant.steps_many(picture, requests[:3])
                for _ in range(left):
                    next(steps, None)
                steps.close()
            else:
                session = store.get(chance.choice("abcd")) if chance.random() < 0.5 else None
                stops = iter([False] * left)
                assistant.ask(picture, request, session, should_stop=lambda stops=stops: next(stops, True))
        except RequestCancelled:
            pass
        if round_ == 300:
            floor = resident()
    assert resident() - floor < 16 << 20
    # Prefixes within 1 MB, at most one sequence for each session: nothing else is alive.
    assert assistant.prefix_bytes <= 1 << 20 and store.nbytes <= 2 << 20
    store.forget()
    assistant.forget()
    assert alive(kind) < before
    assert assistant.ask(frame, ASKED).text == Assistant(runtime).ask(frame, ASKED).text
