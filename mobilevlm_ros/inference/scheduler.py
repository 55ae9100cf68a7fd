# SPDX-License-Identifier: Apache-2.0
"""One inference thread for everyone: priorities, fair turns, pre-emption at token boundaries, deadlines, a
bounded queue.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator
from time import monotonic
from types import TracebackType
from typing import Any

from mobilevlm_ros.errors import Busy, MobileVLMError, contained
from mobilevlm_ros.inference.job import Job, Pause, Priority, T, Work

logger = logging.getLogger(__name__)

REMEMBERED = 256
"""Sources whose last turn is remembered; one that was forgotten counts as not served yet."""


class Scheduler:
    """Runs submitted work on one thread, always the most urgent, switching only where the work yields.

    Args:
        capacity: pieces of work that may wait or be set aside, besides the running one. When it is full, less
            urgent waiting work gives way (it ends with Busy). Without any, the newest work of the source that
            has the most waiting gives way to a source that has at least two fewer, so that nobody can fill
            the queue alone. Else `submit` raises Busy.
        name: of the thread.
        clock: monotonic time, seconds.

    Attributes:
        faults: pieces of work that ended with an error which is none of this package's.
    """

    def __init__(
        self, capacity: int = 16, name: str = "inference", clock: Callable[[], float] = monotonic
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: the queue must hold at least one request")
        self.capacity = capacity
        self._clock = clock
        self._turns = itertools.count(1)
        self._served: dict[tuple[Priority, str], int] = {}  # number of the source's last finished turn
        self._load: tuple[float, float | None] = (0.0, None)  # seconds worked; when the step at hand began
        self._waiting: list[Job[Any]] = []
        self._running: Job[Any] | None = None
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._stopping = False
        self.faults = 0
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Pieces of work that wait for their turn."""
        with self._changed:
            return len(self._waiting)

    def waiting(self, priority: Priority) -> int:
        """Pieces of work of one priority that wait for their turn."""
        with self._changed:
            return sum(job.priority == priority for job in self._waiting)

    @property
    def busy_seconds(self) -> float:
        """Time that the thread has worked since it began, the step at hand included."""
        busy, began = self._load  # replaced as a whole, so no lock is needed
        return busy if began is None else busy + self._clock() - began

    @property
    def step_seconds(self) -> float:
        """How long the step at hand has taken so far; 0 between steps."""
        began = self._load[1]
        return 0.0 if began is None else self._clock() - began

    def submit(
        self,
        work: Work[T],
        *,
        priority: Priority = Priority.QUESTION,
        source: str = "",
        timeout: float | None = None,
        resumable: bool = True,
        on_step: Callable[[Any], None] | None = None,
    ) -> Job[T]:
        """Queue work.

        Args:
            work: see `Work`.
            priority: more urgent work interrupts it at its next yield.
            source: whose work it is (a camera, a client). Within a priority the source whose last finished
                turn is the longest ago goes first, so none starves; within a source the first come. What
                was interrupted goes on before anything new of its priority.
            timeout: seconds from now until RequestTimeout; None waits for ever.
            resumable: go on after an interruption; if False an interruption ends it with Busy.
            on_step: gets every value that the work yields, on the worker thread.

        Raises:
            Busy: the queue is full of work at least as urgent, or the worker was closed.
        """
        deadline = None if timeout is None else self._clock() + timeout
        evicted: Job[Any] | None = None
        with self._changed:
            if self._stopping:
                raise Busy("the model is being unloaded: ask again when the node is active")
            if len(self._waiting) >= self.capacity:
                evicted = self._gives_way(priority, source)
                if evicted is None:
                    raise Busy(f"{len(self._waiting)} requests are waiting already: ask again later")
                self._waiting.remove(evicted)
            job = Job(work, priority, source, deadline, resumable, on_step, next(self._order))
            job.future.set_running_or_notify_cancel()  # from now on only we can end it
            self._waiting.append(job)
            self._changed.notify()
        if evicted is not None:
            why = "more urgent" if evicted.priority > priority else "others'"
            evicted.end(Busy(f"gave way to {why} requests: ask again later"))
        return job

    def cancel(self, job: Job[Any]) -> None:
        """Withdraw a job and end it at once if it has not started."""
        job.cancel()
        with self._changed:
            self._changed.notify()

    def close(self, timeout: float | None = None) -> bool:
        """Cancel everything and stop the thread; True if it ended within `timeout` seconds."""
        with self._changed:
            self._stopping = True
            for job in (*self._waiting, *([self._running] if self._running else ())):
                job.cancel()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _gives_way(self, priority: Priority, source: str) -> Job[Any] | None:
        """Whose place a new piece of work takes in a full queue, if it may take any. Holds the lock."""
        last = max(self._waiting, key=self._rank)
        if last.priority > priority:
            return last
        held = Counter(job.source for job in self._waiting if job.priority == priority)
        greedy = [
            job
            for job in self._waiting
            if job.priority == priority
            and (job.steps is None or job.paused)
            and held[job.source] >= held[source] + 2
        ]
        return max(greedy, key=lambda job: (held[job.source], job.order), default=None)

    def _loop(self) -> None:
        going = True
        while going:
            try:
                going = self._serve()
            except BaseException:  # of a future's callback; the thread serves everybody
                logger.exception("the inference thread goes on after an error")

    def _serve(self) -> bool:
        """Run what is next; False to stop. While nothing is, nothing of what was before is held."""
        job, over = self._next()
        for lost in over:
            lost.end(lost.reason)
        if job is not None:
            self._run(job)
        return job is not None or bool(over)

    def _next(self) -> tuple[Job[Any] | None, list[Job[Any]]]:
        """Wait for something to do: the most urgent job, and those whose time is over; (None, []) to
        stop.
        """
        with self._changed:
            while True:
                now = self._clock()
                over = self._take_over(now)
                ready = [job for job in self._waiting if not job.paused]
                if ready or over or self._stopping:
                    break
                deadlines = [job.deadline for job in self._waiting if job.deadline is not None]
                self._changed.wait(min(deadlines) - now if deadlines else None)
            job = min(ready, key=self._rank, default=None)
            if job is not None:
                job.until = None
                self._waiting.remove(job)
            self._running = job
            return job, over

    def _rank(self, job: Job[Any]) -> tuple[int, bool, int, int]:
        """Sort key: priority, interrupted work first, the source's last turn, order of arrival."""
        served = self._served.get((job.priority, job.source), 0)
        return int(job.priority), job.steps is None, served, job.order

    def _take_over(self, now: float) -> list[Job[Any]]:
        """Remove the jobs that were cancelled or ran out of time while they waited. Holds the lock."""
        over = [job for job in self._waiting if job.cancelled or job.expired(now)]
        for job in over:
            self._waiting.remove(job)
        return over

    def _run(self, job: Job[Any]) -> None:
        """Step a job until it ends or something more urgent waits."""
        try:
            steps = job.begin()
            while True:
                if job.cancelled or job.expired(self._clock()):
                    self._finished_turn(job)
                    job.end(job.reason)
                    return
                value = self._step(steps)
                if job.on_step is not None:
                    job.on_step(value)
                if isinstance(value, Pause) and not value.until.done():
                    self._pause(job, value)
                    return
                if self._yields_to_others(job):
                    return
        except StopIteration as end:
            self._finished_turn(job)
            job.close()
            job.future.set_result(end.value)
        except BaseException as error:  # the thread serves everybody and must outlive any one request
            self._finished_turn(job)
            self.faults += not isinstance(error, MobileVLMError)
            job.end(contained(error.with_traceback(_of_the_work(error.__traceback__))))
        finally:
            with self._changed:
                self._running = None

    def _pause(self, job: Job[Any], pause: Pause) -> None:
        """Set a job aside until it has something to do; others run meanwhile."""
        with self._changed:
            job.until = pause.until
            self._waiting.append(job)  # may pass the capacity by one: it was admitted long ago
        pause.until.add_done_callback(lambda _: self._wake())

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _step(self, steps: Generator[Any, None, Any]) -> Any:
        """One step of the work, on the clock."""
        busy, began = self._load[0], self._clock()
        self._load = (busy, began)
        try:
            return next(steps)
        finally:
            self._load = (busy + self._clock() - began, None)

    def _finished_turn(self, job: Job[Any]) -> None:
        """Its source goes behind the others. Not so where it gave way for good: it is still its turn."""
        with self._changed:
            self._served[job.priority, job.source] = next(self._turns)
            if len(self._served) > REMEMBERED:
                del self._served[min(self._served, key=self._served.__getitem__)]

    def _yields_to_others(self, job: Job[Any]) -> bool:
        """Between two steps: end overdue jobs, and set this one aside if a more urgent one waits."""
        with self._changed:
            over = self._take_over(self._clock())
            urgent = any(other.priority < job.priority and not other.paused for other in self._waiting)
            # Decided once: whoever cancels it from now on meets it among the waiting.
            aside = urgent and job.resumable and not job.cancelled
            if aside:
                self._waiting.append(job)  # may pass the capacity by one: it was admitted long ago
        for lost in over:
            lost.end(lost.reason)
        if urgent and not aside:
            gave_way = Busy("gave way to a more urgent request: ask again later")
            job.end(job.reason if job.cancelled else gave_way)
        return urgent


def _of_the_work(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without this module's frames: they hold the job, which holds the error."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace
