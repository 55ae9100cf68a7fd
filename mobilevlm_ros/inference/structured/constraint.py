# SPDX-License-Identifier: Apache-2.0
"""The state of one answer whose format is enforced."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import EngineError, IncompleteAnswer, NonconformingAnswer, OptionError
from mobilevlm_ros.inference.structured.conformance import complaint
from mobilevlm_ros.inference.structured.formats import read_schema, source_name
from mobilevlm_ros.inference.structured.number_digits import NumberDigits
from mobilevlm_ros.inference.types import AnswerFormat
from mobilevlm_ros.processing.tokenizer import Tokenizer


class Constraint:
    """The state of one answer. Use: `mask`, pick a token among them, `accept` it, until `finished`."""

    def __init__(
        self,
        matcher: Any,
        tokenizer: Tokenizer,
        vocab_size: int,
        stop_ids: frozenset[int],
        form: AnswerFormat,
        digits: NumberDigits | None = None,
    ) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._digits = digits
        self._vocab_size = vocab_size
        self._stop_ids = stop_ids
        self._form = form
        self._ended = False

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, bool[V]; never none. Raises OptionError for too complex a schema."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise unusable(self._form, self._matcher.get_error())
        known = np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(np.bool_)
        allowed = np.zeros(self._vocab_size, np.bool_)
        allowed[: len(known)] = known
        stops = list(self._stop_ids)
        allowed[stops] = allowed[stops].any()
        if not allowed.any():
            raise OptionError(f"{source_name(self._form)} leaves no way to complete the answer: simplify it")
        return allowed if self._digits is None else self._digits.narrowed(allowed)

    def accept(self, token: int) -> None:
        """Tells which of the allowed tokens was taken; a stop token ends the answer."""
        if token in self._stop_ids:
            self._ended = True
        elif not self._matcher.consume_token(token):
            raise EngineError(
                f"token {token} is against the format of the answer: {self._matcher.get_error()}"
            )
        elif self._digits is not None:
            self._digits.accept(self._tokenizer.content(token))

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing else may follow."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    def check(self, text: str, limit: int, max_tokens: int) -> None:
        """Check `text`, the whole answer.

        Raises:
            IncompleteAnswer: it was cut off at `limit` tokens before it was complete.
            NonconformingAnswer: it does not conform to its JSON Schema, in what a grammar cannot express.
        """
        if not self.finished:
            bound = "max_tokens): allow more, or ask for less"
            if limit < max_tokens:
                bound = "the context is full): shorten the question or the session"
            raise IncompleteAnswer(
                f"the answer is not a complete {self._form.kind} after {limit} tokens ({bound}; "
                f"so far {text[:80]!r}"
            )
        if self._form.kind == "json":
            why = complaint(text, read_schema(self._form))
            if why:
                raise NonconformingAnswer(
                    f"the answer does not conform to json_schema: {why}; simplify the schema, or ask again "
                    f"with a temperature (the answer was {text[:80]!r})"
                )


def unusable(form: AnswerFormat, trouble: str) -> OptionError:
    """llguidance's complaint as one sentence: without the grammar's position and source."""
    lines = [line for line in trouble.splitlines() if line.strip()] or ["unknown"]
    why = lines[0].split("failed to compile JSON schema:")[-1].strip()
    if "regex parse error" in why and len(lines) > 1:
        why = f"regex: {next((line for line in lines if line.startswith('error:')), why)}"
    return OptionError(f"{source_name(form)} cannot be used: {why}; correct or simplify it")
