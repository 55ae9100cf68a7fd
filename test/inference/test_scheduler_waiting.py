# SPDX-License-Identifier: Apache-2.0
"""Work that waits for something else holds up nobody, and ends as other work does; nothing of it stays."""

import contextlib
import gc
import weakref
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import pytest
from fixtures.scheduling import LIMIT, Hold, scheduler, steps

from mobilevlm_ros.errors import Busy, EngineError, RequestCancelled, RequestTimeout
from mobilevlm_ros.inference.job import Pause, Priority
from mobilevlm_ros.inference.scheduler import Scheduler

__all__ = ["scheduler"]


def pausing(log: list[str], name: str, until: Future[str]) -> Any:
    def work() -> Generator[str, None, str]:
        log.append(f"{name} begins")
        yield Pause(until)
        log.append(f"{name} goes on")
        return until.result()

    return work


def test_others_run_while_work_waits_for_something_else(scheduler: Scheduler) -> None:
    log: list[str] = []
    until: Future[str] = Future()
    waits = [scheduler.submit(pausing(log, f"w{number}", until)) for number in range(2)]
    assert scheduler.submit(steps(log, "other", 1), priority=Priority.CAPTION).future.result(LIMIT) == "other"
    assert log == ["w0 begins", "w1 begins", "other0"] and not any(job.future.done() for job in waits)
    assert scheduler.queued == 2
    until.set_result("compiled")
    assert [job.future.result(LIMIT) for job in waits] == ["compiled", "compiled"]


def test_what_it_waits_for_may_be_there_already(scheduler: Scheduler) -> None:
    until: Future[str] = Future()
    until.set_result("compiled")
    assert scheduler.submit(pausing([], "w", until)).future.result(LIMIT) == "compiled"


def test_work_that_waits_can_be_withdrawn_and_runs_out_of_time(scheduler: Scheduler) -> None:
    log: list[str] = []
    withdrawn = scheduler.submit(pausing(log, "a", Future()))
    late = scheduler.submit(pausing(log, "b", Future()), timeout=0.2)
    with pytest.raises(RequestTimeout):  # nothing else happens that would wake the thread
        late.future.result(LIMIT)
    scheduler.cancel(withdrawn)
    with pytest.raises(RequestCancelled):
        withdrawn.future.result(LIMIT)
    assert log == ["a begins", "b begins"] and scheduler.queued == 0


def test_work_that_waits_ends_with_the_scheduler() -> None:
    made = Scheduler()
    job = made.submit(pausing([], "w", Future()))
    made.submit(steps([], "x", 1)).future.result(LIMIT)
    assert made.close(LIMIT)
    with pytest.raises(RequestCancelled):
        job.future.result(LIMIT)


def test_one_caller_cannot_fill_the_queue_with_work_that_waits(scheduler: Scheduler) -> None:
    until: Future[str] = Future()
    greedy = [scheduler.submit(pausing([], "w", until), source="greedy") for _ in range(4)]
    other = scheduler.submit(steps([], "other", 1), source="other")
    assert other.future.result(LIMIT) == "other"
    until.set_result("compiled")
    ends = [job.future.exception(LIMIT) for job in greedy]
    assert [type(end) for end in ends if end is not None] in ([], [Busy])


def test_less_urgent_work_is_not_set_aside_for_work_that_waits(scheduler: Scheduler) -> None:
    log: list[str] = []
    until: Future[str] = Future()
    waits = scheduler.submit(pausing(log, "w", until))
    caption = scheduler.submit(steps(log, "c", 3), priority=Priority.CAPTION, resumable=False)
    assert caption.future.result(LIMIT) == "c"
    until.set_result("compiled")
    assert waits.future.result(LIMIT) == "compiled"


class Held:
    """Stands for a picture that work refers to; the work refers to its own job too, as a request does."""

    def __init__(self) -> None:
        self.job: Any = None

    def answers(self) -> Generator[str, None, str]:
        yield "word"
        return "answer"

    def breaks(self) -> Generator[str, None, str]:
        yield "word"
        raise EngineError("broken")

    def breaks_within(self) -> Generator[str, None, str]:
        try:
            return (yield from self.breaks())
        except EngineError as error:
            raise RuntimeError("more") from error

    def goes_on(self) -> Generator[str, None, str]:
        while True:
            yield "word"

    def on_step(self, _: str) -> None:
        """Hear of a step."""


@pytest.mark.parametrize(
    "ending", ["answers", "breaks", "breaks_within", "cancelled", "late", "waiting", "evicted"]
)
def test_nothing_but_the_future_is_left_of_work_that_has_ended(scheduler: Scheduler, ending: str) -> None:
    """Python's collector is off: what refers to itself would stay for hundreds of requests."""
    gc.collect()
    gc.disable()
    try:
        hold = Hold(scheduler)
        held = Held()
        held.job = scheduler.submit(
            getattr(held, ending, held.goes_on),
            priority=Priority.CAPTION,
            timeout=0.0 if ending == "late" else None,
            on_step=held.on_step,
        )
        future = held.job.future
        if ending in ("cancelled", "waiting"):
            scheduler.cancel(held.job)
        if ending == "evicted":
            more = [scheduler.submit(steps([], "q")) for _ in range(scheduler.capacity)]
        hold.release()
        with contextlib.suppress(Exception):
            assert future.result(LIMIT) == "answer"
        if ending == "evicted":
            assert [job.future.result(LIMIT) for job in more] == ["q"] * scheduler.capacity
        assert scheduler.submit(steps([], "last", 1)).future.result(LIMIT) == "last"  # it has gone on
        gone = weakref.ref(held)
        del held
        assert gone() is None
    finally:
        gc.enable()
