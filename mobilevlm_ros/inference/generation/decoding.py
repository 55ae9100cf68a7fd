# SPDX-License-Identifier: Apache-2.0
"""Generates an answer token by token."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.inference.cache.prefill import PrefillResult
from mobilevlm_ros.inference.generation.prompt_lookup import Draft
from mobilevlm_ros.inference.generation.sampling import Sampler
from mobilevlm_ros.inference.generation.stop_strings import StopFilter
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Answer, SamplingParams, TokenLogprob
from mobilevlm_ros.processing.tokenizer import StreamDecoder, Tokenizer


class TokenConstraint(Protocol):
    """What an answer may look like, token by token. One for each answer: it remembers its tokens."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing more can come."""

    def mask(self) -> NDArray[np.bool_]:
        """The tokens that may come next, bool[V]; at least one, the stop tokens included."""

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen, a stop token too."""

    def check(self, text: str, limit: int, max_tokens: int) -> None:
        """Raise a MobileVLMError when the whole answer does not have the form.

        It could have at most `limit` tokens: max_tokens, or fewer where the context was full.
        """


@dataclass(frozen=True)
class Generation:
    """What was generated.

    Attributes:
        text: stripped.
        tokens: the ids of it, the stop token not included.
        confidence: probability of the least sure token; 0 without any.
        finish: 'stop' or 'length'.
        logprobs: of the tokens, where they were asked for.
    """

    text: str
    tokens: tuple[int, ...]
    confidence: float
    finish: str
    logprobs: tuple[TokenLogprob, ...] = ()

    def answer(self) -> Answer:
        """As an answer, without times and counts of the prompt."""
        return Answer(
            text=self.text,
            confidence=self.confidence,
            generated_tokens=len(self.tokens),
            finish_reason=self.finish,
            logprobs=self.logprobs,
        )


class AnswerDecoder:
    """Decodes one answer: chooses each token from the logits after the one before.

    Args:
        sampling: how to choose tokens, and when to end.
        tokenizer: of the bundle.
        stop_ids: tokens that end an answer.
        limit: most tokens that it may have.
        constraint: what may be said; None for anything.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        tokenizer: Tokenizer,
        stop_ids: Collection[int],
        limit: int,
        constraint: TokenConstraint | None = None,
    ) -> None:
        self.tokens: list[int] = []
        self.finish = ""
        """'stop' or 'length' once the answer is complete."""
        self._stop_ids = stop_ids if constraint is None else {*stop_ids, tokenizer.eos_id}
        self.limit = limit
        self._constraint = constraint
        self._params = sampling
        self._tokenizer = tokenizer
        self._sampler = Sampler(sampling)
        self._stream, self._shown = StreamDecoder(tokenizer), StopFilter(sampling.stop)
        self._pieces: list[str] = []
        self._probabilities: list[float] = []
        self._logprobs: list[TokenLogprob] = []

    def step(self, logits: NDArray[np.float32]) -> str | None:
        """The text that the next token adds, '' while it is unclear; None when none was added.

        Args:
            logits: f32[V] after the prompt and the tokens so far.
        """
        constraint, full = self._constraint, len(self.tokens) == self.limit
        pick = self._sampler.pick(logits, None if constraint is None else constraint.mask())
        token, probability = pick.token, math.exp(pick.logprob)
        if constraint is not None and (token in self._stop_ids or not full):
            constraint.accept(token)
        if token in self._stop_ids:
            self.finish = "stop"
            if constraint is not None:  # whether '1' ends here or goes on to '12' is part of what was said
                self._probabilities.append(probability)
            return None
        if full:
            self.finish = "length"
            return None
        self.tokens.append(token)
        self._probabilities.append(probability)
        if self._params.logprobs:
            top = tuple(self._named(other, logprob) for other, logprob in pick.top)
            self._logprobs.append(self._named(token, pick.logprob, top))
        piece = self._stream.push(token)
        if constraint is not None and len(self.tokens) == 1:
            piece = self._tokenizer.content(token)[1:].decode()  # the space before every answer is not of it
        self._pieces.append(self._shown.push(piece))
        if self._shown.stopped or (constraint is not None and constraint.finished):
            self.finish = "stop"
        elif len(self.tokens) == self.limit and constraint is None:
            self.finish = (
                "length"  # with a constraint one more look says whether the answer ends exactly here
            )
        return self._pieces[-1]

    def result(self) -> Generation:
        """The complete answer. Raises OptionError if it was cut before it had the form that was asked for."""
        self._pieces.append(self._shown.push(self._stream.flush()) + self._shown.flush())
        text = "".join(self._pieces)
        if self._constraint is None:
            text = text.strip()
        else:  # its blanks may belong to the format
            self._constraint.check(text, self.limit, self._params.max_tokens)
        # A sentence is as sure as its least sure word.
        confidence = min(self._probabilities, default=0.0)
        return Generation(text, tuple(self.tokens), confidence, self.finish, tuple(self._logprobs))

    def _named(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        content = self._tokenizer.content(token)
        return TokenLogprob(token, content.decode("utf-8", "replace"), content, logprob, top)


def decode(
    read: PrefillResult,
    decoder: AnswerDecoder,
    language: LanguageEngine,
    watch: Stopwatch,
    draft: Draft | None = None,
) -> Generator[str, None, Generation]:
    """Continue a prompt, yielding the text as it grows. Extends `read.cache` by the tokens but the last.

    Args:
        read: the prompt.
        decoder: chooses the tokens of its answer.
        language: the model.
        watch: gets laps of 'decode'.
        draft: proposes draft tokens, and learns the answer. The answer is the same whatever it proposes.

    Raises:
        OptionError: the answer cannot have the form that the constraint wants, or max_tokens cut it off.
    """
    cache, rows = read.cache, read.logits[None]
    drafted: list[int] = []
    while True:
        undrafted = cache.length - len(drafted)
        accepted = 0  # draft tokens that the model would have chosen itself
        for row in rows:
            delta = decoder.step(row)
            if delta is not None:
                watch.lap("decode")
                yield delta
                watch.resume()
            if decoder.finish or accepted == len(drafted) or decoder.tokens[-1] != drafted[accepted]:
                break
            accepted += 1
        cache.truncate(undrafted + accepted)
        if decoder.finish:
            break
        drafted = [] if draft is None else draft.guess(decoder.tokens)
        tokens = np.array([decoder.tokens[-1], *drafted], dtype=np.int64)
        rows = language.forward(language.embed(tokens)[None], cache, num_logits=len(tokens))[0]
    if draft is not None:
        draft.remember(decoder.tokens)
    generation = decoder.result()
    watch.lap("decode")
    return generation
