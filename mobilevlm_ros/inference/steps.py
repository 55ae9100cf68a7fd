# SPDX-License-Identifier: Apache-2.0
"""Work cut at token boundaries, driven to its end where nothing else waits for its turn."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

from mobilevlm_ros.errors import RequestCancelled
from mobilevlm_ros.inference.job import Pause
from mobilevlm_ros.inference.types import Answer

T = TypeVar("T")

Steps: TypeAlias = Generator[str, None, Answer]
"""Yields text as it grows ('' between stages), returns the answer."""

_LOOK = 0.05
"""Seconds of a pause after which `should_stop` is asked again."""


def finish(
    steps: Generator[str, None, T],
    should_stop: Callable[[], bool] | None = None,
    on_text: Callable[[str], None] | None = None,
) -> T:
    """What the work returns, at once.

    `should_stop` is asked before each step; `on_text` gets the text piece by piece. Raises RequestCancelled
    when should_stop() is true, and what the steps raise.
    """
    try:
        while True:
            if should_stop is not None and should_stop():
                raise RequestCancelled("the request was cancelled before its answer was complete")
            delta = next(steps)
            if isinstance(delta, Pause):
                delta.wait(_LOOK)
            elif delta and on_text is not None:
                on_text(delta)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


def silently(steps: Steps) -> Steps:
    """The same boundaries without the text: several answers grow behind one generator."""
    try:
        while True:
            step = next(steps)
            yield step if isinstance(step, Pause) else ""
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    finally:
        steps.close()
