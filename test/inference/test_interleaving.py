# SPDX-License-Identifier: Apache-2.0
"""Whatever is asked, continued, cancelled or reset in between: each answer is about its frame, and the same
as that of an assistant that remembers nothing and reads the whole conversation.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import Busy
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.sessions import Session, SessionLimits, SessionStore
from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.inference.types import Answer, Frame, Region, Request, SamplingParams
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FRAMES = 3
TOKEN_BUDGET = 160
ROUNDING = 0.03
"""Of probabilities in a conversation: a token that was generated was read by another kernel than a token of a
prompt, and 8-bit activations round one way or the other (logits of nano differ by up to 0.05).
"""
QUESTIONS = (
    Request("What is on the left?", sampling=SamplingParams(max_tokens=8)),
    Request("Is there a cone?", choices=("yes", "no")),
    Request("What is it?", choices=("a red ball", "a cone"), system_prompt="You see a road."),
    Request("What colour is it?", region=Region(20, 20, 90, 70), sampling=SamplingParams(max_tokens=5)),
    Request("Is it near?", choices=("yes", "no"), region=Region(20, 20, 90, 70), region_with_frame=True),
)
requests = st.sampled_from(QUESTIONS)
frames = st.integers(0, FRAMES - 1)
names = st.sampled_from("ab")


@dataclass
class Running:
    """Work that was begun, and what it must answer."""

    steps: Generator[str, None, Any]
    expected: list[Answer]
    session: Session | None = None


class Interleaving(RuleBasedStateMachine):
    """The assistant under test next to one without memory."""

    runtime: Runtime
    frames: list[Frame]
    known: dict[Any, Answer]

    def __init__(self) -> None:
        super().__init__()
        # Room for about three pictures and one conversation: prefixes and tails come and go.
        self.assistant = Assistant(self.runtime, prefix_budget=3 << 20)
        self.now = 0.0
        self.store = SessionStore(
            SessionLimits(max_sessions=2, idle_seconds=10, token_budget=TOKEN_BUDGET, byte_budget=3 << 20),
            clock=lambda: self.now,
        )
        self.running: list[Running] = []

    def expect(self, frame: int, request: Request, session: Session | None = None) -> Answer:
        """The answer of a reading from scratch; computed once for each conversation."""
        turns: tuple[Turn, ...] = () if session is None else session.turns
        system = request.system_prompt or (session.system_prompt if session else "")
        region, both = request.region, request.region_with_frame
        if session is not None and session.frame is self.frames[frame] and region is None:
            region, both = session.region, session.region_with_frame
        key = (frame, request.question, turns, system, region, both, session is None)
        if key not in self.known:
            alone = Session(token_budget=TOKEN_BUDGET if session is not None else 10**6)
            alone.turns = turns
            asked = Request(
                request.question,
                request.choices,
                system_prompt=system,
                region=region,
                region_with_frame=both,
                sampling=request.sampling,
            )
            self.known[key] = Assistant(self.runtime, prefix_budget=0).ask(self.frames[frame], asked, alone)
        return self.known[key]

    @precondition(lambda self: len(self.running) < 4)
    @rule(frame=frames, request=requests, caption=st.booleans())
    def begin(self, frame: int, request: Request, caption: bool) -> None:
        if caption:
            request = QUESTIONS[0]
            steps = self.assistant.caption(self.frames[frame], request.question, request.sampling.max_tokens)
        else:
            steps = self.assistant.steps(self.frames[frame], request)
        self.running.append(Running(steps, [self.expect(frame, request)]))

    @precondition(lambda self: len(self.running) < 4)
    @rule(frame=frames, asked=st.lists(requests, max_size=4))
    def begin_many(self, frame: int, asked: list[Request]) -> None:
        steps = self.assistant.steps_many(self.frames[frame], asked)
        self.running.append(Running(steps, [self.expect(frame, request) for request in asked]))

    @precondition(lambda self: len(self.running) < 4)
    @rule(name=names, frame=st.none() | frames, request=requests, reset=st.sampled_from([False, False, True]))
    def begin_turn(self, name: str, frame: int | None, request: Request, reset: bool) -> None:
        session = self.store.get(name, reset)
        shown = self.frames[frame] if frame is not None else session.frame or self.frames[0]
        steps = self.assistant.steps(shown, request, session)
        if session.busy:
            with pytest.raises(Busy):
                next(steps)
            return
        expected = self.expect(self.frames.index(shown), request, session)
        next(steps)  # from here on the session is taken
        self.running.append(Running(steps, [expected], session))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), count=st.integers(1, 5))
    def advance(self, data: st.DataObject, count: int) -> None:
        self.step(data.draw(st.sampled_from(self.running)), count)

    @precondition(lambda self: self.running)
    @rule()
    def finish(self) -> None:
        for running in list(self.running):
            self.step(running, 1000)

    @rule(name=names, asked=st.lists(st.tuples(st.none() | frames, requests), min_size=1, max_size=4))
    def converse(self, name: str, asked: list[tuple[int | None, Request]]) -> None:
        self.finish()
        for frame, request in asked:
            self.begin_turn(name, frame, request, reset=False)
            self.finish()

    def step(self, running: Running, count: int) -> None:
        answered = 0 if running.session is None else running.session.answered
        for _ in range(count):
            try:
                next(running.steps)
            except StopIteration as end:
                self.running.remove(running)
                found = end.value if isinstance(end.value, list) else [end.value]
                self.compare(found, running.expected)
                turn = 0 if running.session is None else answered + 1
                assert [a.session_turn for a in found] == [turn] * len(found)
                return

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        running = data.draw(st.sampled_from(self.running))
        self.running.remove(running)
        turns = running.session and running.session.turns
        running.steps.close()
        assert running.session is None or (running.session.turns == turns and not running.session.busy)

    @rule(seconds=st.sampled_from([1.0, 5.0, 11.0]), forget=st.booleans())
    def wait(self, seconds: float, forget: bool) -> None:
        self.now += seconds
        if forget:
            self.assistant.forget()

    def compare(self, found: list[Answer], expected: list[Answer]) -> None:
        for one, other in zip(found, expected, strict=True):
            assert one.prompt_tokens == other.prompt_tokens
            near = ROUNDING if one.session_turn > 1 else 1e-4
            if one.session_turn > 1 and one.text != other.text:  # a tie that rounding decides
                assert min(one.confidence, other.confidence) < 0.5 + ROUNDING
                continue
            assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
            assert one.choice_probabilities == pytest.approx(other.choice_probabilities, abs=near)
            assert one.confidence == pytest.approx(other.confidence, abs=near)

    @invariant()
    def bounded(self) -> None:
        assert self.assistant.prefix_bytes <= 3 << 20
        assert self.store.nbytes <= 3 << 20 and len(self.store) <= 2

    def teardown(self) -> None:
        for running in self.running:
            running.steps.close()


def test_any_interleaving_answers_as_if_asked_alone(runtime: Runtime) -> None:
    Interleaving.runtime = runtime
    Interleaving.frames = [Frame(observe(sample_scene(i), 0.0, 160, 120).image) for i in range(FRAMES)]
    Interleaving.known = {}
    assert len({np.asarray(f.image).tobytes() for f in Interleaving.frames}) == FRAMES
    run_state_machine_as_test(
        Interleaving,
        settings=settings(
            max_examples=6,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
        ),
    )
