# SPDX-License-Identifier: Apache-2.0
"""Guesses at an answer's next tokens, from the answer before it: the decoder reads several in one run, and
those that it would have chosen itself are kept (prompt lookup decoding; verified as in speculative decoding,
arXiv 2211.17192, for a draft without probabilities).
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
"""Tokens that one run may read, the first of them known. Never one: ONNX Runtime's kernels for a single
token, and for an odd one left over, round otherwise than those for pairs. At 1.4B on two Zen 4 cores such
runs take 1.2, 1.6 and 2.6 times as long as one token; one of 16 takes nearly as long as two of 8."""

_WIDTHS = (3, 2, 1)  # tokens that have to be the same for what followed them to be a guess
_BREAK = -1  # between two answers; no token


class Draft:
    """What is likely to be said next about a subject whose answers resemble each other (a camera's captions).

    Runs grow while guesses come true and shrink when they do not.
    """

    def __init__(self) -> None:
        self.previous: tuple[int, ...] = ()
        """Tokens of the answer before."""
        self._run = DRAFT_LENGTHS[0]
        self._expected: list[int] = []

    def guess(self, said: Sequence[int]) -> list[int]:
        """The tokens that may follow those said (at least one), for a run of these and the last one said."""
        if self._expected:
            came_true = list(said[: len(self._expected)]) == self._expected
            self._run = (
                min(self._run * 2, DRAFT_LENGTHS[-1]) if came_true else max(self._run // 2, DRAFT_LENGTHS[0])
            )
        count = self._run - 1
        guesses = lookup(self.previous, said, count)
        guesses += [said[-1]] * (count - len(guesses))  # any token that the model can read would do
        self._expected = [*said, *guesses]
        return guesses

    def remember(self, said: Sequence[int]) -> None:
        """The answer is complete; the next one may be like it."""
        self.previous = tuple(said)
        self.begin()

    def begin(self) -> None:
        """A new answer, whatever became of the one before."""
        self._expected = []


def lookup(previous: Sequence[int], said: Sequence[int], count: int) -> list[int]:
    """At most `count` tokens that followed the latest place with the same last tokens, in either answer."""
    text = [*previous, _BREAK, *said]
    for width in _WIDTHS[-len(said) :]:
        tail = text[-width:]
        for at in range(len(text) - width - 1, -1, -1):
            if text[at : at + width] == tail:
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
        """The draft of a subject (few different names, please: each is remembered).

        None where the next answer might not be the same with it and without, or has no room for guesses.

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
    """Whether this engine, on this machine, computes the same bits in runs of all RUNS, wherever they begin.

    Tried with tokens from all over the vocabulary behind the tokens of `cache`, which needs room for
    RUNS[-1] + 1 more; they are forgotten again. Takes about 25 tokens' time.
    """
    start, most = cache.length, DRAFT_LENGTHS[-1]
    ids = np.linspace(0, language.vocab_size - 1, most + 3)[1:-1]  # the first and last are seldom trained
    tokens = language.embed(ids.astype(np.int64))[None]

    def read(run: int, skipped: int) -> NDArray[np.float32]:
        """The logits of all tokens but the first and the last. With `skipped` 1 runs begin at the second, as
        after a wrong guess, so that every token is at an even place of a run once and at an odd one once.
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
