# SPDX-License-Identifier: Apache-2.0
"""The state of one answer whose format is enforced."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import EngineError, IncompleteAnswer, OptionError
from mobilevlm_ros.inference.structured.formats import source_name
from mobilevlm_ros.inference.types import AnswerFormat


class Constraint:
    """The state of one answer. Use: `mask`, pick a token among them, `accept` it, until `finished`."""

    def __init__(self, matcher: Any, vocab_size: int, stop_ids: frozenset[int], form: AnswerFormat) -> None:
        self._matcher = matcher
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
        return allowed

    def accept(self, token: int) -> None:
        """Tells which of the allowed tokens was taken; a stop token ends the answer."""
        if token in self._stop_ids:
            self._ended = True
        elif not self._matcher.consume_token(token):
            raise EngineError(
                f"token {token} is against the format of the answer: {self._matcher.get_error()}"
            )

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing else may follow."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    def check(self, text: str, limit: int, max_tokens: int) -> None:
        """Raises IncompleteAnswer if `text`, the answer so far, was cut off at `limit` tokens before it was
        complete.
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
            try:
                json.loads(text)
            except ValueError as error:  # such as a number of more digits than Python reads
                raise EngineError(f"the answer is not JSON after all ({error}): {text[:80]!r}") from error


def unusable(form: AnswerFormat, complaint: str) -> OptionError:
    """llguidance's complaint as one sentence: without the grammar's position and source."""
    lines = [line for line in complaint.splitlines() if line.strip()] or ["unknown"]
    why = lines[0].split("failed to compile JSON schema:")[-1].strip()
    if "regex parse error" in why and len(lines) > 1:
        why = f"regex: {next((line for line in lines if line.startswith('error:')), why)}"
    return OptionError(f"{source_name(form)} cannot be used: {why}; correct or simplify it")
