# SPDX-License-Identifier: Apache-2.0
"""Several free answers about one picture, written side by side: each step reads one token of every answer."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.inference.batch.choices import BATCH_TOKENS, batches, shared_prefix
from mobilevlm_ros.inference.cache.prefill import Prefiller
from mobilevlm_ros.inference.generation.decoding import AnswerDecoder
from mobilevlm_ros.inference.prompt.conversation import PromptTokens
from mobilevlm_ros.inference.prompt_builder import Prompt
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Answer


@dataclass(frozen=True)
class Task:
    """A prompt, and who writes its answer."""

    prompt: Prompt
    decoder: AnswerDecoder

    def own_positions(self, shared: PromptTokens) -> int:
        """Most positions that question and answer take after what is shared."""
        return len(self.prompt.prompt_tokens) - len(shared) + self.decoder.limit


def groups(
    tasks: Mapping[int, Task], prefiller: Prefiller, language: LanguageEngine
) -> list[dict[int, Task]]:
    """Those that can be written side by side: at least two with the same beginning, through their last
    image, whose questions and answers fit the context together. None where the engine gains nothing by it.
    """
    if not language.supports_tree_attention:
        return []
    found: dict[PromptTokens, list[dict[int, Task]]] = {}
    for key, task in tasks.items():
        shared = shared_prefix(task.prompt)
        together = found.setdefault(shared, [{}])
        taken = prefiller.positions(shared) + sum(
            other.own_positions(shared) for other in together[-1].values()
        )
        if together[-1] and taken + task.own_positions(shared) > language.max_length:
            together.append({})
        together[-1][key] = task
    return [group for together in found.values() for group in together if len(group) > 1]


def decode_group(
    prefiller: Prefiller, tasks: Mapping[int, Task], language: LanguageEngine
) -> Generator[str, None, dict[int, Answer]]:
    """Answers to the tasks of one group of `groups`; yields '' at token boundaries.

    Latencies are equal shares of the work.
    """
    watch = Stopwatch()
    first = next(iter(tasks.values())).prompt
    shared = shared_prefix(first)
    reserve = sum(task.own_positions(shared) for task in tasks.values())
    prefix, reused = yield from prefiller.read_prefix(shared, first.views, reserve, watch)
    branches = language.branches(prefix, reserve)
    logits = {}
    prompts = {key: task.prompt for key, task in tasks.items()}
    for batch in batches(prompts, len(shared), max(BATCH_TOKENS, prefiller.chunk)):
        deltas = {key: prefiller.embed(prompt.prompt_tokens[len(shared) :]) for key, prompt in batch.items()}
        logits.update(branches.read(deltas))
        watch.lap("prefill")
        yield ""
        watch.resume()
    while logits:
        for key, rows in logits.items():
            tasks[key].decoder.step(rows[-1])
        watch.lap("decode")
        yield ""
        watch.resume()
        going_on = [key for key in logits if not tasks[key].decoder.finish]
        latest = {key: np.array(tasks[key].decoder.tokens[-1:], dtype=np.int64) for key in going_on}
        logits = branches.read({key: language.embed(ids) for key, ids in latest.items()}) if latest else {}
    answers = {key: task.decoder.result().answer() for key, task in tasks.items()}
    watch.lap("decode")
    return {
        key: replace(
            answer,
            latency=watch.latency(len(tasks)),
            prompt_tokens=prefiller.positions(tasks[key].prompt.prompt_tokens),
            reused_tokens=prefix.length if at else reused,
        )
        for at, (key, answer) in enumerate(answers.items())
    }
