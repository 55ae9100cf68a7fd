# SPDX-License-Identifier: Apache-2.0
"""An answer as it grows."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from mobilevlm_ros.api.options import shortened
from mobilevlm_ros.errors import QuestionError
from mobilevlm_ros.inference.types import Answer, Request


class Stream(Iterator[str]):
    """An answer as it grows: an iterator over its pieces, which together are `answer.text`.

    An answer that may be withheld (`abstain_threshold`), or that is one of the choices, comes as one piece.
    """

    def __init__(self, steps: Generator[str, None, Answer], request: Request) -> None:
        self._answer: Answer | None = None
        self._request = request
        self._pieces = self._stripped(steps)

    @property
    def answer(self) -> Answer:
        """The whole answer; reads what is left of the stream first."""
        return self.wait()

    def wait(self) -> Answer:
        """Read to the end; the whole answer. Raises what `MobileVLM.ask` raises."""
        for _ in self._pieces:
            pass
        if self._answer is None:
            raise QuestionError("the stream was closed before its answer was complete: ask again")
        return self._answer

    def close(self) -> None:
        """Stop the model at the next token."""
        self._pieces.close()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __repr__(self) -> str:
        state = "under way" if self._answer is None else repr(self._answer.text)
        return f"Stream({shortened(self._request)}, {state})"

    def _stripped(self, steps: Generator[str, None, Answer]) -> Generator[str, None, None]:
        """The pieces; without the blanks before and after the answer, unless they may be part of a format."""
        withheld, free = self._request.abstain_threshold > 0, not self._request.answer_format.kind
        shown, held = "", ""
        while True:
            try:
                held += next(steps)
            except StopIteration as end:
                self._answer = end.value
                break
            ready, rest = held, ""
            if free:
                ready, rest = held.rstrip(), held[len(held.rstrip()) :]
                ready = ready if shown else ready.lstrip()
            if ready and not withheld:
                shown, held = shown + ready, rest
                yield ready
        if len(self._answer.text) > len(shown):
            yield self._answer.text[len(shown) :]
