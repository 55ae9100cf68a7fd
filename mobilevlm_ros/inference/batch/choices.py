# SPDX-License-Identifier: Apache-2.0
"""Many questions about one picture: what they share is read once, and their own words side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace

from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.inference.cache.prefill import Prefiller
from mobilevlm_ros.inference.prompt.conversation import PromptTokens, cache_points
from mobilevlm_ros.inference.prompt_builder import Prompt
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Answer

BATCH_TOKENS = 96
"""Most positions of several questions that one call reads, or `Prefiller.chunk` where that is more: 0.9 s at
1.4B on two cores. A longer run reads the words that questions begin with fewer times."""


def groups(prompts: Mapping[int, Prompt]) -> list[dict[int, Prompt]]:
    """Those that can be answered together: at least two with the same beginning, through their last image,
    whose choices are told apart by their first token (the others need KV of their own).
    """
    found: dict[PromptTokens, dict[int, Prompt]] = {}
    for key, prompt in prompts.items():
        if prompt.options.longest == 1:
            found.setdefault(shared_prefix(prompt), {})[key] = prompt
    return [group for group in found.values() if len(group) > 1]


def choose_all(
    prefiller: Prefiller, prompts: Sequence[Prompt], language: LanguageEngine
) -> Generator[str, None, list[Answer]]:
    """Answers to prompts with choices, in their order: together where that can be, else in turn."""
    numbered = dict(enumerate(prompts))
    answers: dict[int, Answer] = {}
    for group in groups(numbered):
        answers.update((yield from choose_group(prefiller, group, language)))
    for i, prompt in numbered.items():
        if i not in answers:
            watch = Stopwatch()
            read = yield from prefiller.read(prompt.prompt_tokens, prompt.views, prompt.reserve, watch)
            chosen = prompt.options.answer(read.logits, read.cache, language)
            answer = yield from watch.timed("prefill", chosen)
            answers[i] = replace(
                answer, latency=watch.latency(), prompt_tokens=read.tokens, reused_tokens=read.reused
            )
    return [answers[i] for i in numbered]


def choose_group(
    prefiller: Prefiller, prompts: Mapping[int, Prompt], language: LanguageEngine
) -> Generator[str, None, dict[int, Answer]]:
    """Answers to the prompts of one group; yields '' at boundaries."""
    watch = Stopwatch()
    first = next(iter(prompts.values()))
    shared = shared_prefix(first)
    parts = list(batches(prompts, len(shared), max(BATCH_TOKENS, prefiller.chunk)))
    reserve = max(sum(len(prompt.prompt_tokens) - len(shared) for prompt in part.values()) for part in parts)
    prefix, reused = yield from prefiller.read_prefix(shared, first.views, reserve, watch)
    answers: dict[int, Answer] = {}
    for part in parts:
        rests = [prefiller.embed(prompt.prompt_tokens[len(shared) :]) for prompt in part.values()]
        for (key, prompt), row in zip(part.items(), language.branch(rests, prefix), strict=True):
            answers[key] = yield from prompt.options.answer(row[-1], prefix, language)
        watch.lap("prefill")
        yield ""
        watch.resume()
    return {
        key: replace(
            answer,
            latency=watch.latency(len(answers)),
            prompt_tokens=prefiller.positions(prompts[key].prompt_tokens),
            reused_tokens=prefix.length if at else reused,
        )
        for at, (key, answer) in enumerate(answers.items())
    }


def shared_prefix(prompt: Prompt) -> PromptTokens:
    """What the prompts about one picture have in common: all up to and with the last image."""
    return prompt.prompt_tokens[: cache_points(prompt.prompt_tokens)[-1]]


def batches(prompts: Mapping[int, Prompt], start: int, size: int) -> Iterator[dict[int, Prompt]]:
    """Prompts in order, in batches of at most `size` positions after `start`, or of one prompt.

    What several begin with counts once, as it is read once.
    """
    batch: dict[int, Prompt] = {}
    taken: set[PromptTokens] = set()
    for key, prompt in prompts.items():
        own = {prompt.prompt_tokens[start:end] for end in range(start + 1, len(prompt.prompt_tokens) + 1)}
        if batch and len(taken | own) > size:
            yield batch
            batch, taken = {}, set()
        batch[key] = prompt
        taken |= own
    yield batch
