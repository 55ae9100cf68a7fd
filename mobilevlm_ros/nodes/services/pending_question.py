# SPDX-License-Identifier: Apache-2.0
"""One question on its way through the inference thread, and the request that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from mobilevlm_msgs.msg import Status
from rclpy.task import Future

from mobilevlm_ros.errors import RequestCancelled
from mobilevlm_ros.inference.cache.sessions import Session
from mobilevlm_ros.inference.job import Job, Priority
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.nodes.model_manager import ModelManager
from mobilevlm_ros.nodes.services.ask_request import AskRequest
from mobilevlm_ros.nodes.services.messages import Goal

Progress = Callable[["PendingQuestion", str], None]
"""Called with what is new in the text ('' between stages)."""


@dataclass(frozen=True)
class Exchange:
    """A question and its answer.

    Attributes:
        confidence: of the answer, 0 to 1.
        at: when it was answered, monotonic seconds.
    """

    question: str
    reply: str
    confidence: float
    at: float


@dataclass
class Counts:
    """How questions ended since the node was configured; each is in exactly one of them."""

    answered: int = 0
    refused: int = 0
    busy: int = 0
    timed_out: int = 0
    cancelled: int = 0

    def add(self, code: int) -> None:
        """Count a question by its status code."""
        names = {
            Status.OK: "answered",
            Status.BUSY: "busy",
            Status.TIMEOUT: "timed_out",
            Status.CANCELLED: "cancelled",
        }
        name = names.get(code, "refused")
        setattr(self, name, getattr(self, name) + 1)


class PendingQuestion:
    """One question on its way through the inference thread.

    Attributes:
        frames: the pictures it is about, once its turn has come.
        loaded: the bundle that answers it, once its turn has come; until then the one that would.
        stage: what is being done: 'waiting', 'encoding', 'reading' or 'answering'.
        text: the answer so far.
        tokens: generated so far.
    """

    def __init__(self, question: AskRequest, model: ModelManager, arrival: float) -> None:
        self.question = question
        self.model = model
        self.loaded = model.loaded  # what answers, once its turn has come; a reload may change it before
        self.arrival = arrival
        self.frames: tuple[Frame, ...] = ()
        self.stage = "waiting"
        self.text = ""
        self.tokens = 0
        self.job: Job[Answer] | None = None
        self._on_progress: Progress | None = None

    @property
    def frame(self) -> Frame | None:
        """The picture it is about, the last one of several; None before its turn has come."""
        return self.frames[-1] if self.frames else None

    @property
    def camera(self) -> str:
        """Name of the camera that the picture comes from."""
        return self.question.label if self.frame is None else self.frame.camera

    async def answer(self, wake: Callable[[], None], on_progress: Progress | None = None) -> Answer:
        """Wait for the answer without holding the executor.

        Args:
            wake: wakes the executor that awaits this.
            on_progress: called on the inference thread.

        Raises:
            MobileVLMError: every reason for which there is no answer.
        """
        self._on_progress = on_progress
        timeout = self.question.timeout
        remaining = None if timeout is None else max(0.0, timeout - (monotonic() - self.arrival))
        self.job = job = self.model.scheduler.submit(
            self._work,
            priority=Priority.QUESTION,
            source=self.question.source,
            timeout=remaining,
            on_step=self._step,
        )
        done: Future = Future()

        def finished(_: Any) -> None:  # on the inference thread
            done.set_result(None)
            wake()  # an executor that waits does not look at futures by itself

        job.future.add_done_callback(finished)
        try:
            await done
            return job.future.result()
        finally:
            self.job = None

    def cancel(self) -> None:
        """Stop at the next token."""
        if self.job is not None:
            self.model.scheduler.cancel(self.job)

    def _work(self) -> Generator[str, None, Answer]:
        queued = monotonic() - self.arrival
        self.loaded = self.model.loaded
        asked = self.question
        self._report("encoding", "")
        session = None
        if asked.session:
            session = self.loaded.sessions.get(
                asked.session, asked.fields.reset_session, self.loaded.session_limits
            )
        elif asked.said:
            session = Session.after(asked.said, self.loaded.runtime.language.max_length)
        self.frames = asked.frames(session)
        answer = yield from self.loaded.assistant.steps(self.frames, asked.request, session)
        if not asked.session:
            answer = replace(answer, session_turn=0)
        return answer.with_queue_time(queued)

    def _step(self, delta: str) -> None:
        self.text += delta
        self.tokens += bool(delta)
        self._report("answering" if self.text else "reading", delta)

    def _report(self, stage: str, delta: str) -> None:
        self.stage = stage
        if self._on_progress is not None:
            self._on_progress(self, delta)


@dataclass(eq=False)
class RequestContext:
    """A client's request, from its arrival to its response: one question, or one after the other to all
    cameras.

    Attributes:
        goal: handle of the action's goal; None for the service.
        arrival: monotonic seconds.
        pending: the one under way.
        clients: ids of those in the graph that may have sent it; None = not looked yet.
    """

    goal: Goal | None = None
    arrival: float = field(default_factory=monotonic)
    pending: PendingQuestion | None = None
    clients: frozenset[bytes] | None = None
    _cancelled: bool = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the rest of it."""
        return self._cancelled or (self.goal is not None and self.goal.is_cancel_requested)

    def cancel(self) -> None:
        """End it: at the next token of the question under way."""
        self._cancelled = True
        if self.pending is not None:
            self.pending.cancel()

    def check(self) -> None:
        """Raises RequestCancelled when it was cancelled."""
        if self.cancelled:
            raise RequestCancelled("the request was cancelled before its turn came")
