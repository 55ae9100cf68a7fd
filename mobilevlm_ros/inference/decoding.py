# SPDX-License-Identifier: Apache-2.0
"""Generates an answer token by token."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.base import LanguageEngine
from mobilevlm_ros.inference.reading import Read
from mobilevlm_ros.inference.sampling import Sampler
from mobilevlm_ros.inference.stopping import StopFilter
from mobilevlm_ros.inference.timing import Stopwatch
from mobilevlm_ros.inference.types import Answer, Request
from mobilevlm_ros.processing.tokenizer import StreamDecoder, Tokenizer


class Constraint(Protocol):
    """What an answer may look like, token by token. One for each answer: it remembers its tokens."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing more can come."""

    def mask(self) -> NDArray[np.bool_]:
        """The tokens that may come next, bool[V]; at least one, the stop tokens included."""

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen, a stop token too."""

    def check(self, text: str) -> None:
        """Raise a MobileVLMError when the whole answer is not of the form, because it was cut short."""


@dataclass(frozen=True)
class Written:
    """What was generated.

    Attributes:
        text: stripped.
        tokens: the ids of it, the stop token not included.
        confidence: probability of the least sure token; 0 without any.
        finish: 'stop' or 'length'.
    """

    text: str
    tokens: tuple[int, ...]
    confidence: float
    finish: str

    def answer(self) -> Answer:
        """As an answer, without times and counts of the prompt."""
        return Answer(
            text=self.text,
            confidence=self.confidence,
            generated_tokens=len(self.tokens),
            finish_reason=self.finish,
        )


def decode(
    read: Read,
    request: Request,
    language: LanguageEngine,
    tokenizer: Tokenizer,
    stop_ids: Collection[int],
    watch: Stopwatch,
    constraint: Constraint | None = None,
) -> Generator[str, None, Written]:
    """Continue a prompt, yielding the text as it grows. Extends `read.cache` by the tokens but the last.

    Args:
        read: the prompt.
        request: how to sample, and when to end.
        language: the decoder.
        tokenizer: of the bundle.
        stop_ids: tokens that end an answer.
        watch: gets laps of 'decode'.
        constraint: what may be said; None for anything.

    Raises:
        OptionError: the answer cannot have the form that the constraint wants, or max_tokens cut it off.
    """
    if constraint is not None:
        stop_ids = {*stop_ids, tokenizer.eos_id}
    sampler = Sampler(request.temperature, request.top_p, request.seed, request.repetition_penalty)
    stream, shown = StreamDecoder(tokenizer), StopFilter(request.stop)
    tokens: list[int] = []
    pieces: list[str] = []
    probabilities: list[float] = []
    logits, finish = read.logits, "length"
    limit = min(request.max_tokens, language.max_length - read.tokens)
    while True:
        token, probability = sampler.pick(logits, None if constraint is None else constraint.mask())
        if constraint is not None and (token in stop_ids or len(tokens) < limit):
            constraint.accept(token)
        if token in stop_ids:
            finish = "stop"
            if constraint is not None:  # whether '1' ends here or goes on to '12' is part of what was said
                probabilities.append(probability)
            break
        if len(tokens) == limit:
            break
        tokens.append(token)
        probabilities.append(probability)
        pieces.append(shown.push(stream.push(token)))
        watch.lap("decode")
        yield pieces[-1]
        watch.resume()
        if shown.stopped or (constraint is not None and constraint.finished):
            finish = "stop"
            break
        if len(tokens) == limit and constraint is None:
            break  # with a constraint one more look says whether the answer ends exactly here
        embedding = language.embed(np.array([token], dtype=np.int64))
        logits = language.forward(embedding[None], read.cache)[0, -1]
    pieces.append(shown.push(stream.flush()) + shown.flush())
    watch.lap("decode")
    text = "".join(pieces).strip()
    if constraint is not None:
        constraint.check(text)
    # A sentence is as sure as its least sure word.
    return Written(text, tuple(tokens), min(probabilities, default=0.0), finish)
