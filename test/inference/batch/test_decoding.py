# SPDX-License-Identifier: Apache-2.0
"""Free answers that are written side by side are those written one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.engine.interfaces import Branches, KVCache, LanguageEngine
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Answer, AnswerFormat, Frame, Region, Request, SamplingParams

FREE = (
    Request("What is on the left?", sampling=SamplingParams(max_tokens=6)),
    Request("What colour is the light?", sampling=SamplingParams(max_tokens=12)),
    Request("Is there a cone?", ("yes", "no")),
    Request("What is on the road?", sampling=SamplingParams(max_tokens=9, temperature=0.8, seed=3)),
    Request("How many cones are there?", answer_format=AnswerFormat("integer", minimum=0, maximum=9)),
    Request("What is it?", region=Region(5, 5, 90, 60), sampling=SamplingParams(max_tokens=5)),
    Request("What colour is it?", region=Region(5, 5, 90, 60), sampling=SamplingParams(max_tokens=5)),
    Request("Describe the scene.", sampling=SamplingParams(max_tokens=30, stop=("and",))),
    Request("What is on the left?", sampling=SamplingParams(max_tokens=6)),
)


class Counting:
    """A language engine that notes how many tokens each of its runs reads."""

    def __init__(self, inner: LanguageEngine) -> None:
        self.inner = inner
        self.runs: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def forward(self, embeddings: np.ndarray, cache: KVCache, num_logits: int = 1) -> np.ndarray:
        self.runs.append(embeddings.shape[1])
        return self.inner.forward(embeddings, cache, num_logits)

    def branches(self, cache: KVCache, room: int) -> CountingBranches:
        return CountingBranches(self.inner.branches(cache, room), self.runs)


class CountingBranches:
    """Its branches, which share a run."""

    def __init__(self, inner: Branches, runs: list[int]) -> None:
        self.inner, self.runs = inner, runs

    def read(self, pieces: Mapping[int, np.ndarray], num_logits: int = 1) -> dict[int, np.ndarray]:
        self.runs.append(sum(len(piece) for piece in pieces.values()))
        return self.inner.read(pieces, num_logits)


def finish(assistant: Assistant, frame: Frame, requests: Sequence[Request]) -> list[Answer]:
    steps = assistant.steps_many(frame, requests)
    while True:
        try:
            assert next(steps) == ""
        except StopIteration as end:
            answers: list[Answer] = end.value
            return answers


def test_they_are_those_written_one_by_one(runtime: Runtime, frame: Frame) -> None:
    together, alone = finish(Assistant(runtime), frame, FREE), Assistant(runtime)
    for one, request in zip(together, FREE, strict=True):
        expected = alone.ask(frame, request)
        assert (one.text, one.finish_reason) == (expected.text, expected.finish_reason)
        assert (one.prompt_tokens, one.generated_tokens) == (
            expected.prompt_tokens,
            expected.generated_tokens,
        )
        assert one.confidence == pytest.approx(expected.confidence, abs=1e-3)


def test_a_step_reads_one_token_of_each(runtime: Runtime, frame: Frame) -> None:
    if not runtime.language.supports_tree_attention:
        pytest.skip("answers are written in turn with an ONNX Runtime older than 1.22")
    requests = [
        Request(f"What is {where}?", sampling=SamplingParams(max_tokens=8, stop=()))
        for where in ("left", "right", "near")
    ]
    counting = Counting(runtime.language)
    answers = finish(Assistant(replace(runtime, language=counting)), frame, requests)
    steps = max(answer.generated_tokens for answer in answers)
    assert sum(answer.generated_tokens for answer in answers) > steps > 1
    small = [tokens for tokens in counting.runs if tokens <= 3]
    assert len(small) <= steps  # and not one run for each token of each answer
    assert len({answer.latency.decode for answer in answers}) == 1  # shares of the same work


def test_those_that_do_not_fit_the_context_together_are_written_in_turn(
    runtime: Runtime, frame: Frame
) -> None:
    context = runtime.language.max_length
    requests = [
        Request(q, sampling=SamplingParams(max_tokens=context)) for q in ("What is left?", "What is right?")
    ]
    answers = finish(Assistant(runtime), frame, requests)
    alone = Assistant(runtime)
    assert [a.text for a in answers] == [alone.ask(frame, request).text for request in requests]


def test_work_that_is_given_up_leaves_the_others_right(runtime: Runtime, frame: Frame) -> None:
    assistant = Assistant(runtime)
    expected = [answer.text for answer in finish(Assistant(runtime), frame, FREE)]
    for stop in (1, 3, 6, 9, 14):
        steps = assistant.steps_many(frame, FREE)
        for _ in range(stop):
            next(steps, None)
        steps.close()
    assert [answer.text for answer in finish(assistant, frame, FREE)] == expected
