# SPDX-License-Identifier: Apache-2.0
"""What is read from a kept prefix is what is read from nothing, on the logits."""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.cache.prefill import (
    KEPT_IMAGES,
    PREFILL_CHUNK,
    Prefiller,
    PrefillResult,
    SequenceCache,
)
from mobilevlm_ros.inference.prompt.conversation import PromptTokens, Turn, cache_points, compose
from mobilevlm_ros.inference.prompt.image_views import ImageInput, ImagePreparer
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Frame, Region
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question

EXACT = 1e-3
"""Of logits: what another order of additions may change."""


@pytest.fixture
def views(runtime: Runtime, frame: Frame, other_frame: Frame) -> list[ImageInput]:
    image_preparer = ImagePreparer(runtime.vision.image_size, "pad", fast=True)
    return [image_preparer.views(f)[0] for f in (frame, other_frame)]


def reader(runtime: Runtime, budget: int = 1 << 30, run: int = PREFILL_CHUNK) -> Prefiller:
    return Prefiller(runtime.vision, runtime.language, budget, run)


def prompt(
    runtime: Runtime, views: list[ImageInput], question: str, *turns: Turn, system: str = ""
) -> PromptTokens:
    digests = [view.digest for view in views]
    return compose(TEMPLATES["v1"], runtime.tokenizer, system, digests, turns, question)


def last(steps: Generator[str, None, Any]) -> Any:
    while True:
        try:
            assert next(steps) == ""
        except StopIteration as end:
            return end.value


def read(
    reader: Prefiller,
    prompt_tokens: PromptTokens,
    views: list[ImageInput],
    room: int = 8,
    sequence: SequenceCache | None = None,
) -> PrefillResult:
    return last(reader.read(prompt_tokens, views, room, Stopwatch(), sequence))


def test_a_prompt_reads_as_the_rendered_text_in_one_run(
    runtime: Runtime, views: list[ImageInput], frame: Frame, from_scratch: Callable
) -> None:
    found = read(reader(runtime), prompt(runtime, views[:1], "Is it red?"), views[:1])
    text = TEMPLATES["v1"].render([(image_question("Is it red?"), None)])
    np.testing.assert_allclose(found.logits, from_scratch(text, [frame.image]), atol=EXACT)
    assert (found.reused, found.tokens) == (0, found.cache.length)


@pytest.mark.parametrize("run", [1 << 20, 7])
def test_every_kept_prefix_gives_the_logits_of_a_reading_from_nothing(
    runtime: Runtime, views: list[ImageInput], run: int
) -> None:
    warm = reader(runtime, run=run)
    shown = [views[:1], views[1:], views[:1], views, views[::-1]]  # an image, another, the first again, both
    reused = []
    for question in ("Is it red?", "What is on the left?"):
        for images in shown:
            prompt_tokens = prompt(runtime, images, question)
            found = read(warm, prompt_tokens, images)
            cold = read(reader(runtime, budget=0), prompt_tokens, images)
            assert cold.reused == 0
            np.testing.assert_allclose(found.logits, cold.logits, atol=EXACT)
            reused.append(found.reused)
    head = cache_points(prompt(runtime, views, "?"))[0]
    n = runtime.vision.num_tokens
    # the head; the first image; one image of two or, in another order, none; the second time all of it
    assert reused[:3] == [0, head, head + n]
    assert [r - head - n for r in reused[3:5]] == [0, 0]
    assert min(reused[5:]) >= head + n and max(reused[5:]) > head + 2 * n


def test_a_tail_is_extended_where_it_knows_more(runtime: Runtime, views: list[ImageInput]) -> None:
    ours = reader(runtime)
    begun = read(ours, prompt(runtime, views[:1], "Is it red?"), views[:1], room=200)
    sequence = SequenceCache(begun.prompt_tokens, begun.cache, begun.cache.length)
    prompt_tokens = prompt(runtime, views[:1], "Why?", Turn("Is it red?", "yes"))
    found = read(ours, prompt_tokens, views[:1], sequence=sequence)
    assert found.cache is sequence.cache and found.reused == begun.tokens
    cold = read(reader(runtime, budget=0), prompt_tokens, views[:1])
    np.testing.assert_allclose(found.logits, cold.logits, atol=EXACT)
    sequence.restore()
    assert sequence.cache.length == begun.tokens


def test_room_to_spare_is_used_before_a_tail_is_copied(runtime: Runtime, views: list[ImageInput]) -> None:
    ours = reader(runtime)
    turns: tuple[Turn, ...] = ()
    sequence, caches = None, []
    for i in range(12):
        prompt_tokens = prompt(runtime, views[:1], "Is it red?", *turns)
        found = last(ours.read(prompt_tokens, views[:1], 8, Stopwatch(), sequence, spare=60))
        sequence = SequenceCache(found.prompt_tokens, found.cache, found.cache.length)
        turns = (*turns, Turn("Is it red?", f"yes {i}"))
        if not caches or caches[-1] is not found.cache:
            caches.append(found.cache)
        assert found.cache.capacity >= min(found.tokens + 8, runtime.language.max_length)
    assert 1 < len(caches) < 6


def test_a_tail_of_another_picture_is_left_alone(runtime: Runtime, views: list[ImageInput]) -> None:
    ours = reader(runtime)
    begun = read(ours, prompt(runtime, views[:1], "Is it red?"), views[:1])
    sequence = SequenceCache(begun.prompt_tokens, begun.cache, begun.cache.length)
    found = read(ours, prompt(runtime, views[1:], "Is it red?"), views[1:], sequence=sequence)
    assert found.cache is not sequence.cache
    assert (sequence.length, sequence.prompt_tokens) == (begun.tokens, begun.prompt_tokens)


def test_the_same_question_again_still_reads_its_last_token(
    runtime: Runtime, views: list[ImageInput]
) -> None:
    ours = reader(runtime)
    prompt_tokens = prompt(runtime, views[:1], "Is it red?")
    begun = read(ours, prompt_tokens, views[:1])
    again = read(
        ours, prompt_tokens, views[:1], sequence=SequenceCache(prompt_tokens, begun.cache, begun.cache.length)
    )
    assert again.reused == begun.tokens - 1
    np.testing.assert_allclose(again.logits, begun.logits, atol=0.1)  # alone: another kernel


def test_a_picture_under_another_system_prompt_is_not_encoded_again(
    runtime: Runtime, views: list[ImageInput]
) -> None:
    ours, watch = reader(runtime), Stopwatch()
    read(ours, prompt(runtime, views[:1], "Is it red?"), views[:1])
    prompt_tokens = prompt(runtime, views[:1], "Is it red?", system="You see a road.")
    found = last(ours.read(prompt_tokens, views[:1], 0, watch))
    assert found.reused == 0 and watch.latency().encode == 0


def test_branches_grow_from_a_prefix_that_is_not_changed(runtime: Runtime, views: list[ImageInput]) -> None:
    ours = reader(runtime)
    prompt_tokens = prompt(runtime, views[:1], "Is it red?")
    start = cache_points(prompt_tokens)[-1]
    prefix, reused = last(ours.read_prefix(prompt_tokens[:start], views[:1], 40, Stopwatch()))
    assert reused == 0 and prefix.length == ours.positions(prompt_tokens[:start])
    again, known = last(ours.read_prefix(prompt_tokens[:start], views[:1], 0, Stopwatch()))
    assert known == again.length == prefix.length
    (row,) = runtime.language.branch([ours.embed(prompt_tokens[start:])], prefix)
    assert prefix.length == again.length
    found = read(ours, prompt_tokens, views[:1])
    assert found.reused == again.length
    np.testing.assert_allclose(row[-1], found.logits, atol=EXACT)


def test_the_budget_holds_and_clear_forgets(runtime: Runtime, frame: Frame) -> None:
    image_preparer = ImagePreparer(runtime.vision.image_size, "pad", fast=True)
    ours = reader(runtime, budget=1 << 20)
    for x in range(KEPT_IMAGES + 3):
        views = image_preparer.views(frame, Region(x, 0, 60, 60))
        read(ours, prompt(runtime, views, "Is it red?"), views)
        assert ours.nbytes <= 1 << 20 and ours.pictures <= KEPT_IMAGES
    assert ours.nbytes > 0
    ours.clear()
    assert (ours.nbytes, ours.pictures) == (0, 0)
