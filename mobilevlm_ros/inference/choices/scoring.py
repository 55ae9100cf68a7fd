# SPDX-License-Identifier: Apache-2.0
"""A probability for each choice, read from the model without generating anything."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine
from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.processing.tokenizer import Tokenizer

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""The suffix of the official GQA, POPE and MME question files: it makes the model begin with the answer
itself.
"""

BATCH = 72
"""Tokens of choices read between two boundaries: about a second at 1.4B on two cores."""


def variants(choice: str) -> tuple[str, ...]:
    """The ways a model writes the same answer: as given, capitalised, lower case; without repeats."""
    return tuple(dict.fromkeys((choice, choice[:1].upper() + choice[1:], choice.lower())))


def candidates(choices: Sequence[str], tokenizer: Tokenizer) -> tuple[list[tuple[int, ...]], list[int]]:
    """Token sequences of all variants, and for each the index of its choice.

    Where one sequence continues another ('stop', 'stop sign') only the end of the answer tells them apart, so
    then all get the end token; otherwise the first tokens do, and 'yes, it is' still counts for 'yes'.
    """
    sequences: list[tuple[int, ...]] = []
    owners: list[int] = []
    for index, choice in enumerate(choices):
        for ids in dict.fromkeys(tuple(tokenizer.encode(text, bos=False)) for text in variants(choice)):
            sequences.append(ids)
            owners.append(index)
    if any(a != b and b[: len(a)] == a for a in sequences for b in sequences):
        sequences = [(*ids, tokenizer.eos_id) for ids in sequences]
    return sequences, owners


def score(
    logits: NDArray[np.float32],
    cache: KVCache,
    language: LanguageEngine,
    sequences: Sequence[tuple[int, ...]],
) -> Generator[str, None, NDArray[np.float64]]:
    """Mean log-probability per token of each sequence, f64[len(sequences)]; yields '' at boundaries.

    Args:
        logits: f32[V] after the prompt: they score the first tokens.
        cache: KV of the prompt (batch 1), the same afterwards. Not looked at for sequences of one token.
        language: the engine.
        sequences: token ids, each with at least one.
    """
    first = log_softmax(logits)
    totals = np.array([first[ids[0]] for ids in sequences])
    longer = [i for i, ids in enumerate(sequences) if len(ids) > 1]
    # A sequence needs the logits after each of its tokens but the last, and shares them with its neighbours.
    for batch in _batches(_branches([sequences[i][:-1] for i in longer])):
        embeddings = [language.embed(np.array(ids, dtype=np.int64)) for ids in batch]
        rows = language.branch(embeddings, cache, max(map(len, batch)))
        for branch, row in zip(batch, rows, strict=True):
            following = log_softmax(row)
            for i in [i for i in longer if branch[: len(sequences[i]) - 1] == sequences[i][:-1]]:
                totals[i] += sum(following[t, token] for t, token in enumerate(sequences[i][1:]))
                longer.remove(i)
        yield ""
    result: NDArray[np.float64] = totals / [len(ids) for ids in sequences]
    return result


def _branches(beginnings: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those that no other one continues, each once."""
    ordered = sorted(set(beginnings))
    followers = [*ordered[1:], ()]
    return [ids for ids, after in zip(ordered, followers, strict=False) if after[: len(ids)] != ids]


def _batches(branches: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Branches in order, in batches of at most BATCH tokens, or of one branch."""
    batch: list[tuple[int, ...]] = []
    for ids in branches:
        if batch and sum(map(len, batch)) + len(ids) > BATCH:
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def probabilities(scores: NDArray[np.float64], owners: Sequence[int], count: int) -> tuple[float, ...]:
    """Variant scores summed for each choice (as probabilities) and normalised over the choices."""
    weights = np.zeros(count)
    np.add.at(weights, list(owners), np.exp(scores - scores.max()))
    return tuple(float(p) for p in weights / weights.sum())
