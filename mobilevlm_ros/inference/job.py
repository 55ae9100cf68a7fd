# SPDX-License-Identifier: Apache-2.0
"""A piece of work for the scheduler: a generator that can be set aside, who is urgent, and its result."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, TypeVar

from mobilevlm_ros.errors import RequestCancelled, RequestTimeout

T = TypeVar("T")

Work = Callable[[], Generator[Any, None, T]]
"""Makes a generator that yields at each point where it may be set aside, and returns the result.

It is called on the worker thread when its turn comes, so whatever it needs (the latest frame) is taken then.
"""


class Pause(str):
    """An empty piece of text that work yields when it has nothing to do until a future is done.

    Whoever steps the work may step it again at any time; a scheduler runs others until then.
    """

    until: Future[Any]

    def __new__(cls, until: Future[Any]) -> Pause:
        made = super().__new__(cls)
        made.until = until
        return made

    def wait(self, seconds: float) -> None:
        """Wait until then, so many seconds at most."""
        wait([self.until], seconds)


class Priority(IntEnum):
    """Who goes first; the lower number wins. Within one priority the sources take turns (see `submit`)."""

    QUESTION = 0
    MONITOR = 1
    CAPTION = 2


@dataclass(eq=False)
class Job(Generic[T]):
    """A submitted piece of work.

    `future` gets the result or an exception: RequestCancelled, RequestTimeout, Busy (set aside for good by
    more urgent work), or whatever the work raised. Its callbacks run on the worker thread, or on the thread
    of the submission that took its place.

    Once it has ended, nothing but the future is left of it: what was submitted often refers to the job, and
    the two would hold a picture of megabytes together until Python's collector comes round.
    """

    work: Work[T] | None
    priority: Priority
    source: str
    deadline: float | None
    resumable: bool
    on_step: Callable[[Any], None] | None
    order: int
    future: Future[T] = field(default_factory=Future)
    steps: Generator[Any, None, T] | None = None
    cancelled: bool = False
    until: Future[Any] | None = None  # what it waits for, once it has begun

    @property
    def paused(self) -> bool:
        """Whether it has nothing to do yet."""
        return self.until is not None and not self.until.done()

    def cancel(self) -> None:
        """Withdraw: never started if it waits, stopped at the next boundary if it runs. Harmless when
        done.
        """
        self.cancelled = True

    def expired(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    @property
    def reason(self) -> Exception:
        """Why it ends before it is done."""
        if self.cancelled:
            return RequestCancelled("the request was cancelled before its answer was complete")
        return RequestTimeout("the request ran past its timeout: allow more time or ask for fewer tokens")

    def begin(self) -> Generator[Any, None, T]:
        """The work's steps, from now on."""
        if self.steps is None:
            assert self.work is not None  # it has not ended
            self.steps, self.work = self.work(), None
        return self.steps

    def close(self) -> None:
        """Let go of what the work holds: a held Future must not hold the KV cache too."""
        steps, self.steps = self.steps, None
        self.work = self.on_step = None
        if steps is not None:
            steps.close()

    def end(self, error: BaseException) -> None:
        """Close it, and give its future the error, whose traceback holds no variables any more."""
        self.close()
        told: BaseException | None = error
        while told is not None:
            traceback.clear_frames(told.__traceback__)
            told = told.__cause__ or told.__context__
        self.future.set_exception(error)
