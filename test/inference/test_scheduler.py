# SPDX-License-Identifier: Apache-2.0

import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import pytest
from fixtures.scheduling import LIMIT, Hold, scheduler, steps
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import Busy, EngineError, RequestCancelled, RequestTimeout
from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.scheduler import REMEMBERED, Scheduler

__all__ = ["scheduler"]


def test_work_runs_by_priority_then_by_arrival(scheduler: Scheduler) -> None:
    log: list[str] = []
    hold = Hold(scheduler)
    jobs = [
        scheduler.submit(steps(log, "c", 1), priority=Priority.CAPTION),
        scheduler.submit(steps(log, "m", 1), priority=Priority.MONITOR),
        scheduler.submit(steps(log, "q", 1)),
        scheduler.submit(steps(log, "r", 1)),
    ]
    hold.release()
    assert [t.future.result(LIMIT) for t in jobs] == ["c", "m", "q", "r"]
    assert log == ["q0", "r0", "m0", "c0"]


def test_a_question_interrupts_at_a_step_and_the_interrupted_work_goes_on(scheduler: Scheduler) -> None:
    log: list[str] = []
    gate = threading.Event()
    monitor = scheduler.submit(steps(log, "m", 4, gate), priority=Priority.MONITOR)
    question = scheduler.submit(steps(log, "q", 2))
    gate.set()
    assert question.future.result(LIMIT) == "q" and monitor.future.result(LIMIT) == "m"
    assert sorted(log) == ["m0", "m1", "m2", "m3", "q0", "q1"]
    assert log.index("q1") - log.index("q0") == 1 and log[-1] == "m3"


def test_work_that_cannot_resume_gives_way_for_good(scheduler: Scheduler) -> None:
    log: list[str] = []
    hold = Hold(scheduler, priority=Priority.CAPTION, resumable=False)
    question = scheduler.submit(steps(log, "q"))
    hold.release()
    assert question.future.result(LIMIT) == "q"
    with pytest.raises(Busy, match="more urgent"):
        hold.job.future.result(LIMIT)


def test_work_that_is_cancelled_while_it_is_set_aside_ends_once(scheduler: Scheduler) -> None:
    gate, started = threading.Event(), threading.Event()

    def caption() -> Generator[None, None, None]:
        started.set()
        gate.wait(LIMIT)
        yield None

    running = scheduler.submit(caption, priority=Priority.CAPTION)
    assert started.wait(LIMIT)
    # Its future ends between the decision to set the caption aside and the end of that.
    late = scheduler.submit(steps([], "late"), timeout=0.0)
    late.future.add_done_callback(lambda _: running.cancel())
    question = scheduler.submit(steps([], "q"))
    gate.set()
    assert question.future.result(LIMIT) == "q"
    with pytest.raises(RequestCancelled):
        running.future.result(LIMIT)
    assert scheduler.submit(steps([], "again")).future.result(LIMIT) == "again"


def test_a_full_queue_refuses_equals_and_lets_the_urgent_in(scheduler: Scheduler) -> None:
    hold = Hold(scheduler)
    captions = [scheduler.submit(steps([], "c"), priority=Priority.CAPTION) for _ in range(4)]
    with pytest.raises(Busy, match="4 requests are waiting"):
        scheduler.submit(steps([], "c"), priority=Priority.CAPTION)
    question = scheduler.submit(steps([], "q"))
    with pytest.raises(Busy, match="gave way"):
        captions[-1].future.result(LIMIT)
    hold.release()
    assert question.future.result(LIMIT) == "q"
    assert [c.future.result(LIMIT) for c in captions[:-1]] == ["c"] * 3


def test_nobody_can_fill_the_queue_alone(scheduler: Scheduler) -> None:
    hold = Hold(scheduler)
    flood = [scheduler.submit(steps([], "f"), source="flood") for _ in range(4)]
    first = scheduler.submit(steps([], "a"), source="a")
    second = scheduler.submit(steps([], "b"), source="b")
    for displaced in flood[2:]:
        with pytest.raises(Busy, match="gave way to others"):
            displaced.future.result(LIMIT)
    third = scheduler.submit(steps([], "c"), source="c")  # the flood still had two, the others one each
    with pytest.raises(Busy, match="gave way to others"):
        flood[1].future.result(LIMIT)
    for source in ("flood", "a", "d"):  # now each has one: nobody has to give way
        with pytest.raises(Busy, match="4 requests are waiting"):
            scheduler.submit(steps([], source), source=source)
    hold.release()
    jobs = (flood[0], first, second, third)
    assert [job.future.result(LIMIT) for job in jobs] == ["f", "a", "b", "c"]


def test_the_memory_of_turns_is_bounded(scheduler: Scheduler) -> None:
    """A source that was forgotten counts as one that had no turn yet."""
    for number in range(REMEMBERED + 1):
        scheduler.submit(steps([], "x", 1), source=str(number)).future.result(LIMIT)
    log: list[str] = []
    hold = Hold(scheduler)
    jobs = [scheduler.submit(steps(log, name, 1), source=name) for name in (str(REMEMBERED), "0")]
    hold.release()
    for job in jobs:
        job.future.result(LIMIT)
    assert log == ["00", f"{REMEMBERED}0"]


def test_cancelled_and_late_work_is_never_started(scheduler: Scheduler) -> None:
    log: list[str] = []
    hold = Hold(scheduler)
    late = scheduler.submit(steps(log, "late"), timeout=0.0)
    gone = scheduler.submit(steps(log, "gone"))
    scheduler.cancel(gone)
    hold.release()
    with pytest.raises(RequestTimeout, match="timeout"):
        late.future.result(LIMIT)
    with pytest.raises(RequestCancelled):
        gone.future.result(LIMIT)
    assert log == []


def test_running_work_is_cancelled_at_its_next_step(scheduler: Scheduler) -> None:
    started, closed = threading.Event(), threading.Event()

    def endless() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    job = scheduler.submit(endless, on_step=lambda _: started.set())
    assert started.wait(LIMIT)
    scheduler.cancel(job)
    with pytest.raises(RequestCancelled):
        job.future.result(LIMIT)
    assert closed.is_set()


def test_running_work_times_out_at_its_next_step(scheduler: Scheduler) -> None:
    def slow() -> Generator[int, None, None]:
        while True:
            time.sleep(0.001)
            yield 1

    job = scheduler.submit(slow, timeout=0.02)
    with pytest.raises(RequestTimeout):
        job.future.result(LIMIT)


def test_an_error_ends_its_request_only(scheduler: Scheduler) -> None:
    def broken() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no")

    def refused() -> Generator[int, None, None]:
        raise ValueError("at once")

    for work in (broken, refused):
        with pytest.raises(ValueError):
            scheduler.submit(work).future.result(LIMIT)
    assert scheduler.submit(steps([], "q")).future.result(LIMIT) == "q"


class Panic(BaseException):
    """What a library in Rust raises when it gives up (pyo3's PanicException is none of Exception's kind)."""


@pytest.mark.parametrize("fault", [Panic("index out of bounds"), SystemExit(3), KeyboardInterrupt()])
def test_what_would_end_a_process_ends_its_request_only(scheduler: Scheduler, fault: BaseException) -> None:
    def broken() -> Generator[int, None, None]:
        yield 1
        raise fault

    def on_step(_: Any) -> None:
        raise fault

    jobs = [scheduler.submit(broken), scheduler.submit(steps([], "q"), on_step=on_step)]
    for job in jobs:
        with pytest.raises(EngineError, match=type(fault).__name__) as caught:
            job.future.result(LIMIT)
        assert caught.value.__cause__ is fault
    job = scheduler.submit(steps([], "q"))
    job.future.add_done_callback(on_step)
    assert job.future.result(LIMIT) == "q"
    assert scheduler.submit(steps([], "again")).future.result(LIMIT) == "again"
    assert scheduler.faults == 2


def test_every_yielded_value_is_reported_in_order(scheduler: Scheduler) -> None:
    seen: list[Any] = []

    def work() -> Generator[int, None, str]:
        yield from range(5)
        return "done"

    assert scheduler.submit(work, on_step=seen.append).future.result(LIMIT) == "done"
    assert seen == [0, 1, 2, 3, 4]


def test_closing_cancels_everything_and_refuses_more() -> None:
    scheduler = Scheduler()
    hold = Hold(scheduler)
    waiting = scheduler.submit(steps([], "q"))
    closer = threading.Thread(target=scheduler.close)
    closer.start()
    with pytest.raises(Busy):
        while True:
            scheduler.submit(steps([], "x"))
    hold.release()
    closer.join(LIMIT)
    for job in (hold.job, waiting):
        with pytest.raises(RequestCancelled):
            job.future.result(LIMIT)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Priority)),
            st.integers(0, 4),  # steps
            st.booleans(),  # resumable
            st.booleans(),  # cancelled right away
            st.sampled_from([None, 0.0, LIMIT]),  # timeout
        ),
        max_size=24,
    )
)
def test_no_request_is_lost_or_answered_twice_or_with_another_ones_answer(jobs: list[tuple]) -> None:
    scheduler = Scheduler(capacity=6)
    ended: list[int] = []
    futures: list[tuple[int, Future]] = []
    for index, (priority, count, resumable, cancelled, timeout) in enumerate(jobs):

        def work(index: int = index, count: int = count) -> Generator[None, None, int]:
            for _ in range(count):
                yield None
            return index

        try:
            job = scheduler.submit(work, priority=priority, resumable=resumable, timeout=timeout)
        except Busy:
            continue
        job.future.add_done_callback(lambda _, index=index: ended.append(index))
        futures.append((index, job.future))
        if cancelled:
            scheduler.cancel(job)
    for index, future in futures:
        error = future.exception(LIMIT)
        assert (
            isinstance(error, (Busy, RequestCancelled, RequestTimeout)) if error else future.result() == index
        )
    assert scheduler.close(LIMIT)
    assert sorted(ended) == [index for index, _ in futures]
