# SPDX-License-Identifier: Apache-2.0
"""Guesses make captions faster and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobilevlm_ros.engine.interfaces import KVCache
from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.prefill import PrefillResult
from mobilevlm_ros.inference.generation.decoding import AnswerDecoder, Generation, decode
from mobilevlm_ros.inference.generation.prompt_lookup import (
    DRAFT_LENGTHS,
    Draft,
    Drafts,
    is_length_invariant,
    lookup,
)
from mobilevlm_ros.inference.steps import Steps
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Answer, Frame, Request, SamplingParams

TOKENS = 40


def finish(steps: Steps) -> Answer:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def read_prompt(runtime: Runtime, room: int = TOKENS + DRAFT_LENGTHS[-1], seed: int = 1) -> PrefillResult:
    language = runtime.language
    prompt = np.random.default_rng(seed).integers(3, language.vocab_size, 21)
    cache = language.new_cache(1, len(prompt) + room)
    logits = language.forward(language.embed(prompt)[None], cache)[0, -1]
    return PrefillResult(tuple(prompt.tolist()), cache, logits, len(prompt), 0)


def length_invariant(runtime: Runtime) -> bool:
    return is_length_invariant(runtime.language, read_prompt(runtime).cache)


def counted_runs(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each run of the model from now on."""
    runs: list[int] = []
    forward = runtime.language.forward

    def counted(embeddings: NDArray[np.float32], cache: KVCache, num_logits: int = 1) -> NDArray[np.float32]:
        runs.append(embeddings.shape[1])
        return forward(embeddings, cache, num_logits)

    monkeypatch.setattr(runtime.language, "forward", counted)
    return runs


def write(
    runtime: Runtime, read: PrefillResult, draft: Draft | None, request: Request
) -> tuple[str, Generation]:
    """What was streamed, and what was written; no token ends it early."""
    steps = decode(
        read, AnswerDecoder(request, runtime.tokenizer, (), TOKENS), runtime.language, Stopwatch(), draft
    )
    deltas = []
    while True:
        try:
            deltas.append(next(steps))
        except StopIteration as end:
            written: Generation = end.value
            return "".join(deltas), written


@pytest.mark.parametrize(
    ("said", "count", "expected"),
    [
        ([5], 3, [6, 7, 8]),  # the one token that there is
        ([1, 5], 3, [6, 7, 8]),
        ([2, 5], 3, [9]),  # two that are the same count for more than one; the answer before ends there
        ([5, 6, 3, 5], 2, [6, 3]),  # the latest place with one that is the same, here in this answer
        ([4], 3, []),  # never said
        ([9], 3, []),  # nothing follows
    ],
)
def test_a_guess_is_what_followed_the_same_tokens(said: list[int], count: int, expected: list[int]) -> None:
    assert lookup([1, 5, 6, 7, 8, 2, 5, 9], said, count) == ([9] if said == [5] else expected)


def test_runs_grow_while_guesses_come_true_and_shrink_when_not() -> None:
    draft, said = Draft(), [0]
    draft.remember(range(60))
    lengths = []
    for _ in range(4):
        guesses = draft.guess(said)
        lengths.append(len(guesses) + 1)
        assert guesses == list(range(said[-1] + 1, said[-1] + 1 + len(guesses)))
        said += [*guesses, said[-1] + len(guesses) + 1]
    for _ in range(3):
        said.append(99)
        lengths.append(len(draft.guess(said)) + 1)
    assert lengths == [2, 4, 8, 8, 8, 4, 2]
    assert set(lengths) <= set(DRAFT_LENGTHS)


def test_an_answer_that_was_given_up_does_not_count_against_the_next() -> None:
    draft = Draft()
    draft.remember(range(60))
    assert len(draft.guess([0])) == 1
    assert len(draft.guess([0, 1, 2])) == 3
    draft.begin()
    assert draft.guess([0]) == [1, 2, 3]


def test_without_anything_to_guess_from_runs_are_of_two() -> None:
    draft = Draft()
    assert [len(draft.guess(list(range(length)))) for length in (1, 2, 3)] == [1, 1, 1]


@settings(deadline=None)
@given(st.data())
def test_whatever_is_guessed_the_answer_is_the_same(runtime: Runtime, data: st.DataObject) -> None:
    request = data.draw(
        st.sampled_from(
            [
                SamplingParams(max_tokens=TOKENS),
                SamplingParams(max_tokens=TOKENS, temperature=0.9, seed=4, top_p=0.9),
                SamplingParams(max_tokens=TOKENS, repetition_penalty=1.3),
            ]
        )
    )
    read = read_prompt(runtime)
    if not is_length_invariant(runtime.language, read.cache):
        pytest.skip("this processor's kernels round differently: no guesses here")
    _, expected = write(runtime, read, Draft(), request)
    wrong = data.draw(st.sets(st.integers(0, TOKENS - 1)))
    draft = Draft()
    draft.remember([3 if at in wrong else token for at, token in enumerate(expected.tokens)])
    again = read_prompt(runtime)
    streamed, written = write(runtime, again, draft, request)
    assert written == expected  # text, tokens, confidence to the last bit
    assert streamed.strip() == written.text
    assert again.cache.length == read.cache.length == read.tokens + TOKENS - 1
    assert draft.previous == written.tokens


def test_an_answer_that_ends_leaves_its_tokens_in_the_cache(runtime: Runtime) -> None:
    first = read_prompt(runtime, seed=4)  # whose answer repeats itself late
    _, whole = write(runtime, first, Draft(), SamplingParams(max_tokens=TOKENS))
    last = max(set(whole.tokens), key=whole.tokens.index)
    before = whole.tokens[: whole.tokens.index(last)]
    assert len(before) > 2
    for previous in ((), whole.tokens, (*before[:2], 3, *before[2:])):
        read, draft = read_prompt(runtime, seed=4), Draft()
        draft.remember(previous)
        writer = AnswerDecoder(SamplingParams(max_tokens=TOKENS), runtime.tokenizer, (last,), TOKENS)
        steps = decode(read, writer, runtime.language, Stopwatch(), draft)
        while next(steps, None) is not None:
            pass
        assert (tuple(writer.tokens), writer.finish) == (before, "stop")
        assert read.cache.length == read.tokens + len(before)


def test_the_trial_leaves_the_cache_as_it_was(runtime: Runtime) -> None:
    read, fresh = read_prompt(runtime), read_prompt(runtime)
    is_length_invariant(runtime.language, read.cache)
    assert read.cache.length == read.tokens
    token = runtime.language.embed(np.array([7]))[None]
    np.testing.assert_array_equal(
        runtime.language.forward(token, read.cache), runtime.language.forward(token, fresh.cache)
    )


def larger(logits: NDArray[np.float32], rows: slice) -> NDArray[np.float32]:
    logits[:, rows] = np.nextafter(logits[:, rows], np.float32(np.inf))
    return logits


def broken(logits: NDArray[np.float32], rows: slice) -> NDArray[np.float32]:
    raise EngineError("the decoder failed")


@pytest.mark.parametrize(
    ("runs", "change", "rows"),
    [
        (DRAFT_LENGTHS[-1:], larger, slice(None)),  # long runs round otherwise
        (DRAFT_LENGTHS, larger, slice(1, None, 2)),  # tokens at odd places do
        (DRAFT_LENGTHS, broken, slice(None)),
    ],
)
def test_an_engine_that_rounds_differently_is_found_out(
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    runs: tuple[int, ...],
    change: Callable[[NDArray[np.float32], slice], NDArray[np.float32]],
    rows: slice,
) -> None:
    forward, read = runtime.language.forward, read_prompt(runtime)

    def uneven(embeddings: NDArray[np.float32], cache: KVCache, num_logits: int = 1) -> NDArray[np.float32]:
        logits = forward(embeddings, cache, num_logits)
        return change(logits, rows) if embeddings.shape[1] in runs else logits

    monkeypatch.setattr(runtime.language, "forward", uneven)
    assert not is_length_invariant(runtime.language, read.cache)
    drafts = Drafts(runtime)
    assert drafts.of("front", read.cache, TOKENS) is None
    monkeypatch.undo()
    assert drafts.of("front", read.cache, TOKENS) is None  # tried once
    assert read.cache.length == read.tokens


def test_a_prompt_that_leaves_no_room_for_guesses_has_none(runtime: Runtime) -> None:
    drafts = Drafts(runtime)
    assert drafts.of("front", read_prompt(runtime, TOKENS + DRAFT_LENGTHS[-1] - 1).cache, TOKENS) is None


def test_a_caption_of_any_length_leaves_room_for_its_draft(
    frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant = Assistant(load_runtime(threads=1))
    runs = counted_runs(assistant.runtime, monkeypatch)
    finish(assistant.caption(frame, max_tokens=assistant.runtime.language.max_length))
    if length_invariant(assistant.runtime):
        assert 1 not in runs  # every run had draft tokens


def test_gpus_have_none(runtime: Runtime) -> None:
    drafts = Drafts(replace(runtime, backend_name="tensorrt"))
    assert drafts.of("front", read_prompt(runtime).cache, TOKENS) is None


def test_each_subject_has_its_own(runtime: Runtime) -> None:
    if not length_invariant(runtime):
        pytest.skip("this processor's kernels round differently: no draft tokens here")
    drafts, cache = Drafts(runtime), read_prompt(runtime).cache
    front = drafts.of("front", cache, TOKENS)
    assert front is drafts.of("front", cache, TOKENS)
    assert front is not drafts.of("rear", cache, TOKENS)


def test_the_second_caption_of_a_camera_takes_fewer_runs(
    frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load_runtime(threads=1)  # nano: its captions are sentences
    seen = counted_runs(runtime, monkeypatch)
    assistant = Assistant(runtime)
    answers, counts = [], []
    for camera in ("front", "front", "rear"):
        seen.clear()
        answers.append(finish(assistant.caption(replace(frame, camera=camera))))
        counts.append(sum(tokens in DRAFT_LENGTHS for tokens in seen))
    assert {(a.text, a.confidence, a.generated_tokens) for a in answers} == {
        (answers[0].text, answers[0].confidence, answers[0].generated_tokens)
    }
    assert answers[0].text == assistant.ask(frame, Request("Describe the scene.")).text
    if length_invariant(runtime):
        assert counts[1] < counts[2] / 2
