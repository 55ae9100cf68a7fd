# SPDX-License-Identifier: Apache-2.0
"""A probability for each choice, read from the model without generating anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.base import KVCache, LanguageEngine
from mobilevlm_ros.inference.sampling import log_softmax
from mobilevlm_ros.processing.tokenizer import Tokenizer

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""The suffix of the official GQA, POPE and MME question files: it makes the model begin with the answer
itself.
"""


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
) -> NDArray[np.float64]:
    """Mean log-probability per token of each sequence, f64[len(sequences)].

    Args:
        logits: f32[V] after the prompt: they score the first tokens.
        cache: KV of the prompt (batch 1); not changed. Longer sequences are scored on copies, as one batch.
        language: the engine.
        sequences: token ids, each with at least one.
    """
    first = log_softmax(logits)
    totals = np.array([first[ids[0]] for ids in sequences])
    lengths = np.array([len(ids) for ids in sequences])
    # Sequences that share all but their last token need the model only once: feed each distinct beginning.
    beginnings = list(dict.fromkeys(ids[:-1] for ids in sequences if len(ids) > 1))
    if beginnings:
        width = max(map(len, beginnings))
        padded = np.zeros((len(beginnings), width), dtype=np.int64)  # padding comes after: causal, so unseen
        for row, ids in enumerate(beginnings):
            padded[row, : len(ids)] = ids
        embeddings = language.embed(padded.ravel()).reshape(len(beginnings), width, -1)
        branch = cache.copy(len(beginnings), cache.length + width)
        following = log_softmax(language.forward(embeddings, branch, num_logits=width))
        row_of = {ids: row for row, ids in enumerate(beginnings)}
        for i, ids in enumerate(sequences):
            if len(ids) > 1:
                row = row_of[ids[:-1]]
                totals[i] += sum(following[row, t, ids[t + 1]] for t in range(len(ids) - 1))
    result: NDArray[np.float64] = totals / lengths
    return result


def probabilities(scores: NDArray[np.float64], owners: Sequence[int], count: int) -> tuple[float, ...]:
    """Variant scores summed for each choice (as probabilities) and normalised over the choices."""
    weights = np.zeros(count)
    np.add.at(weights, list(owners), np.exp(scores - scores.max()))
    return tuple(float(p) for p in weights / weights.sum())
