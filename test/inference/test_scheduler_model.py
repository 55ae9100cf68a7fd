# SPDX-License-Identifier: Apache-2.0
"""The real worker against a written-out model of what it should do, one step at a time, on a clock of our
own.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mobilevlm_ros.errors import Busy, RequestCancelled, RequestTimeout
from mobilevlm_ros.inference.job import Job, Priority
from mobilevlm_ros.inference.scheduler import Scheduler

LIMIT = 20.0  # seconds that nothing here takes unless it hangs
CAMERAS = ("front", "rear", "left")


@dataclass(eq=False)
class ModelJob:
    """What the model knows of a piece of work."""

    index: int
    priority: Priority
    camera: str
    resumable: bool
    deadline: float | None
    segments: int
    job: Job[Any] | None = None
    frame: int | None = None  # the camera's newest when its turn came
    done_segments: int = 0
    cancelled: bool = False
    expected: Any = None  # result, or the type of the error
    callbacks: list[Future[Any]] = field(default_factory=list)


class SchedulerModel(RuleBasedStateMachine):
    """Submissions, cancellations, new frames and time come in any order between the steps of the work."""

    @initialize(capacity=st.integers(1, 5))
    def begin(self, capacity: int) -> None:
        self.now = 0.0
        self.frames = dict.fromkeys(CAMERAS, 0)
        self.parked: queue.Queue[int] = queue.Queue()
        self.permits = threading.Semaphore(0)
        self.jobs: list[ModelJob] = []
        self.waiting: list[ModelJob] = []
        self.running: ModelJob | None = None
        self.served: dict[tuple[Priority, str], int] = {}
        self.turns = 0
        self.capacity = capacity
        self.scheduler = Scheduler(capacity, clock=lambda: self.now)

    # What the test does -------------------------------------------------------------------------------------

    @rule(
        priority=st.sampled_from(list(Priority)),
        camera=st.sampled_from(CAMERAS),
        segments=st.integers(1, 4),
        resumable=st.booleans(),
        timeout=st.sampled_from([None, None, None, 0.0, 1.0, 5.0]),
    )
    def submit(
        self, priority: Priority, camera: str, segments: int, resumable: bool, timeout: float | None
    ) -> None:
        deadline = None if timeout is None else self.now + timeout
        job = ModelJob(len(self.jobs), priority, camera, resumable, deadline, segments)
        victim = None
        if len(self.waiting) >= self.capacity:
            victim = self._gives_way(priority, camera)
            if victim is None:
                try:
                    self.scheduler.submit(self._work(job), priority=priority, source=camera)
                except Busy:
                    return
                raise AssertionError("a full queue took one more")
        job.job = self.scheduler.submit(
            self._work(job), priority=priority, source=camera, timeout=timeout, resumable=resumable
        )
        job.job.future.add_done_callback(job.callbacks.append)
        self.jobs.append(job)
        if victim is not None:
            self.waiting.remove(victim)
            self._ends(victim, Busy)
        self.waiting.append(job)
        if self.running is None:
            self._next_turn()

    @precondition(lambda self: self.running is not None)
    @rule(place=st.integers(0, 5))
    def cancel(self, place: int) -> None:
        there = [self.running, *self.waiting]
        job = there[place % len(there)]
        assert job is not None and job.job is not None
        self.scheduler.cancel(job.job)
        job.cancelled = True

    @rule(camera=st.sampled_from(CAMERAS))
    def a_new_frame(self, camera: str) -> None:
        self.frames[camera] += 1

    @rule(seconds=st.sampled_from([0.5, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.running is not None)
    @rule()
    def one_step(self) -> None:
        job = self.running
        assert job is not None
        self.permits.release()
        job.done_segments += 1
        if job.done_segments == job.segments:
            self._finish(job, (job.index, job.camera, job.frame))
            return self._next_turn()
        self._drop_overdue()
        if any(other.priority < job.priority for other in self.waiting):
            if job.cancelled:
                self._ends(job, RequestCancelled)
            elif job.resumable:
                self.waiting.append(job)
            else:
                self._ends(job, Busy)
            return self._next_turn()
        if job.cancelled or self._late(job):
            self._finish(job, RequestCancelled if job.cancelled else RequestTimeout)
            return self._next_turn()
        self._is_parked(job)

    # What the model says should happen ----------------------------------------------------------------------

    def _gives_way(self, priority: Priority, camera: str) -> ModelJob | None:
        """The last of all where it is less urgent; else the newest of the camera with the most of this
        priority waiting, if they are at least two more than the newcomer's.
        """
        last = max(self.waiting, key=self._rank)
        if last.priority > priority:
            return last
        waiting: dict[str, list[ModelJob]] = {}
        for job in self.waiting:
            if job.priority == priority:
                waiting.setdefault(job.camera, []).append(job)
        own = len(waiting.get(camera, []))
        best: tuple[int, int] = (own + 1, -1)
        victim = None
        for jobs in waiting.values():
            for job in jobs:
                if job.frame is None and len(jobs) >= own + 2 and (len(jobs), job.index) > best:
                    best, victim = (len(jobs), job.index), job
        return victim

    def _next_turn(self) -> None:
        self._drop_overdue()
        self.running = min(self.waiting, key=self._rank, default=None)
        if self.running is not None:
            self.waiting.remove(self.running)
            if self.running.frame is None:
                self.running.frame = self.frames[self.running.camera]
            self._is_parked(self.running)

    def _rank(self, job: ModelJob) -> tuple[int, bool, int, int]:
        return (
            job.priority,
            job.frame is None,
            self.served.get((job.priority, job.camera), 0),
            job.index,
        )

    def _late(self, job: ModelJob) -> bool:
        return job.deadline is not None and self.now >= job.deadline

    def _drop_overdue(self) -> None:
        for job in [j for j in self.waiting if j.cancelled or self._late(j)]:
            self.waiting.remove(job)
            self._ends(job, RequestCancelled if job.cancelled else RequestTimeout)

    def _finish(self, job: ModelJob, outcome: Any) -> None:
        self.turns += 1
        self.served[job.priority, job.camera] = self.turns
        self._ends(job, outcome)

    def _ends(self, job: ModelJob, outcome: Any) -> None:
        assert job.expected is None
        job.expected = outcome

    # The fake work ------------------------------------------------------------------------------------------

    def _work(self, job: ModelJob) -> Any:
        def work() -> Generator[None, None, tuple[int, str, int]]:
            frame = self.frames[job.camera]
            for segment in range(job.segments):
                self.parked.put(job.index)
                self.permits.acquire()
                if segment < job.segments - 1:
                    yield None
            return job.index, job.camera, frame

        return work

    def _is_parked(self, job: ModelJob) -> None:
        assert self.parked.get(timeout=LIMIT) == job.index

    @invariant()
    def what_has_ended_ended_as_expected(self) -> None:
        for job in getattr(self, "jobs", ()):
            assert job.job is not None
            if job.expected is None:
                assert not job.job.future.done()
            else:
                assert _outcome(job.job.future) == job.expected
        if getattr(self, "jobs", ()):
            assert self.scheduler.queued == len(self.waiting)
            for priority in Priority:
                assert self.scheduler.waiting(priority) == sum(j.priority == priority for j in self.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "worker"):
            return
        self.permits.release(100)
        assert self.scheduler.close(LIMIT)
        for job in self.jobs:
            assert job.job is not None
            outcome = _outcome(job.job.future)
            if job.expected is None:
                assert outcome in (RequestCancelled, RequestTimeout, Busy) or outcome[0] == job.index
            assert job.callbacks == [job.job.future]  # exactly once


def _outcome(future: Future[Any]) -> Any:
    error = future.exception(LIMIT)
    return type(error) if error is not None else future.result()


SchedulerModel.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestSchedulerModel = SchedulerModel.TestCase


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(CAMERAS), max_size=30))
def test_sources_with_waiting_work_get_turns_in_equal_numbers(sources: list[str]) -> None:
    scheduler = Scheduler(capacity=31)
    gate = threading.Event()
    served: list[str] = []

    def hold() -> Generator[None, None, None]:
        gate.wait(LIMIT)
        yield None

    def work(source: str) -> Generator[None, None, None]:
        served.append(source)
        yield None

    scheduler.submit(hold)
    jobs = [
        scheduler.submit(lambda source=source: work(source), priority=Priority.CAPTION, source=source)
        for source in sources
    ]
    gate.set()
    for job in jobs:
        job.future.result(LIMIT)
    assert scheduler.close(LIMIT)
    left, turns = Counter(sources), Counter[str]()
    for source in served:
        hungry = [s for s in CAMERAS if left[s]]
        assert turns[source] == min(turns[s] for s in hungry)  # nobody with work waiting had fewer
        turns[source] += 1
        left[source] -= 1
    assert not left.total()


def test_interrupted_work_goes_on_before_another_source_begins() -> None:
    scheduler = Scheduler()
    log: list[str] = []
    entered, gate = threading.Event(), threading.Event()

    def work(name: str, wait: bool = False) -> Generator[None, None, None]:
        log.append(name)
        if wait:
            entered.set()
            gate.wait(LIMIT)
        yield None
        log.append(name)

    captions = {"priority": Priority.CAPTION}
    scheduler.submit(lambda: work("front first"), source="front", **captions).future.result(LIMIT)
    jobs = [scheduler.submit(lambda: work("front again", wait=True), source="front", **captions)]
    assert entered.wait(LIMIT)
    jobs.append(scheduler.submit(lambda: work("rear"), source="rear", **captions))
    jobs.append(scheduler.submit(lambda: work("question")))
    gate.set()
    for job in jobs:
        job.future.result(LIMIT)
    assert scheduler.close(LIMIT)
    assert log[2:] == ["front again", "question", "question", "front again", "rear", "rear"]


def test_the_time_worked_is_counted() -> None:
    now = [0.0]
    scheduler = Scheduler(clock=lambda: now[0])

    def work() -> Generator[None, None, float]:
        now[0] += 2.0
        yield None
        now[0] += 3.0
        return scheduler.busy_seconds

    assert scheduler.submit(work).future.result(LIMIT) == 5.0
    now[0] += 10.0
    assert scheduler.close(LIMIT)
    assert scheduler.busy_seconds == 5.0
