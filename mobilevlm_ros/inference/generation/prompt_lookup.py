# SPDX-License-Identifier: Apache-2.0
"""Draft tokens for an answer, taken from the answer before it (prompt lookup decoding).

The model reads several draft tokens in one run and keeps those that it would have chosen itself, as in
speculative decoding (arXiv 2211.17192) with a draft that has no probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine
from mobilevlm_ros.engine.runtime import ORT_CPU, Runtime
from mobilevlm_ros.errors import EngineError

DRAFT_LENGTHS = (2, 4, 8)
"""Tokens that one run may read: the last one of the answer, and draft tokens.

Never one token alone: ONNX Runtime's kernels for a single token, and for an odd one left over, round
otherwise than those for pairs. At 1.4B on two Zen 4 cores such runs take 1.2, 1.6 and 2.6 times as long as
one token; one of 16 takes nearly as long as two of 8."""

_WIDTHS = (3, 2, 1)  # tokens that have to be the same for what followed them to be a draft
_BREAK = -1  # between two answers; no token


class Draft:
    """Draft tokens for answers that resemble each other, such as the captions of one camera.

    Runs grow while draft tokens are accepted and shrink when they are not.
    """

    def __init__(self) -> None:
        self.previous: tuple[int, ...] = ()
        """Tokens of the answer before."""
        self._run = DRAFT_LENGTHS[0]
        self._expected: list[int] = []

    def guess(self, generated: Sequence[int]) -> list[int]:
        """Draft tokens that may follow the `generated` ones (at least one).

        Together with the last generated one they are as many as one of DRAFT_LENGTHS.
        """
        if self._expected:
            accepted = list(generated[: len(self._expected)]) == self._expected
            self._run = (
                min(self._run * 2, DRAFT_LENGTHS[-1]) if accepted else max(self._run // 2, DRAFT_LENGTHS[0])
            )
        count = self._run - 1
        drafted = lookup(self.previous, generated, count)
        drafted += [generated[-1]] * (count - len(drafted))  # any token that the model can read would do
        self._expected = [*generated, *drafted]
        return drafted

    def remember(self, generated: Sequence[int]) -> None:
        """The answer is complete; the next one may be like it."""
        self.previous = tuple(generated)
        self.begin()

    def begin(self) -> None:
        """A new answer, whatever became of the one before."""
        self._expected = []


def lookup(previous: Sequence[int], generated: Sequence[int], count: int) -> list[int]:
    """At most `count` tokens that followed the latest place with the same last tokens, in either answer."""
    text = [*previous, _BREAK, *generated]
    for width in _WIDTHS[-len(generated) :]:
        last = text[-width:]
        for at in range(len(text) - width - 1, -1, -1):
            if text[at : at + width] == last:
                found = text[at + width : at + width + count]
                return found[: found.index(_BREAK)] if _BREAK in found else found
    return []


class Drafts:
    """The drafts of one model, by subject."""

    def __init__(self, runtime: Runtime) -> None:
        self._language = runtime.language
        # None: not tried yet. What runs of a few tokens take on GPUs has not been measured.
        self._exact: bool | None = None if runtime.backend_name == ORT_CPU else False
        self._drafts: dict[str, Draft] = {}

    def of(self, subject: str, cache: KVCache, limit: int) -> Draft | None:
        """The draft of a subject. Use few different names: each is remembered.

        None where the next answer might not be the same with it and without, or the cache has no room for
        draft tokens.

        Args:
            subject: whose answer it is.
            cache: of the prompt that is to be answered; as it was, afterwards.
            limit: most tokens of the answer.
        """
        if cache.capacity - cache.length < limit + DRAFT_LENGTHS[-1]:
            return None
        if self._exact is None:
            self._exact = is_length_invariant(self._language, cache)
        if not self._exact:
            return None
        draft = self._drafts.setdefault(subject, Draft())
        draft.begin()
        return draft


def is_length_invariant(language: LanguageEngine, cache: KVCache) -> bool:
    """Whether this engine, on this machine, computes the same bits in runs of any of DRAFT_LENGTHS.

    Tried with tokens from all over the vocabulary behind the tokens of `cache`, which needs room for
    DRAFT_LENGTHS[-1] + 1 more; they are forgotten again. Takes about 25 tokens' time.
    """
    start, most = cache.length, DRAFT_LENGTHS[-1]
    ids = np.linspace(0, language.vocab_size - 1, most + 3)[1:-1]  # the first and last are seldom trained
    tokens = language.embed(ids.astype(np.int64))[None]

    def read(run: int, skipped: int) -> NDArray[np.float32]:
        """The logits of all tokens but the first and the last, read `run` tokens at a time.

        With `skipped` 1 the runs begin at the second token, as after a draft token that was not accepted:
        every token is at an even place of a run once, and at an odd one once.
        """
        cache.truncate(start)
        if skipped:
            language.forward(tokens[:, : DRAFT_LENGTHS[0]], cache, num_logits=DRAFT_LENGTHS[0])
            cache.truncate(start + skipped)
        places = range(skipped, skipped + most, run)
        logits = [language.forward(tokens[:, at : at + run], cache, num_logits=run)[0] for at in places]
        return np.concatenate(logits)[1 - skipped : most - skipped]

    try:
        results = (read(run, skipped) for run in DRAFT_LENGTHS for skipped in (0, 1))
        return all(np.array_equal(one, other) for one, other in pairwise(results))
    except EngineError:
        return False
    finally:
        cache.truncate(start)
