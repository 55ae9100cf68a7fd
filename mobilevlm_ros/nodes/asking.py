# SPDX-License-Identifier: Apache-2.0
"""Serves questions: the same path for the `ask_image` service and the `ask` action."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from mobilevlm_msgs.msg import Latency as LatencyMessage
from mobilevlm_msgs.msg import Status
from rclpy.task import Future
from std_msgs.msg import Header

from mobilevlm_ros.errors import RequestCancelled, RequestTimeout
from mobilevlm_ros.inference.assistant import with_queue_time
from mobilevlm_ros.inference.types import Answer, Frame, Latency
from mobilevlm_ros.inference.worker import Priority, Ticket
from mobilevlm_ros.nodes.cameras import to_time_message
from mobilevlm_ros.nodes.model import Model
from mobilevlm_ros.nodes.question import Question
from mobilevlm_ros.nodes.status import status_of


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


class Inquiry:
    """One question on its way through the inference thread.

    Attributes:
        frame: the picture it is about, once its turn has come.
        loaded: the bundle that answers it, once its turn has come; until then the one that would.
        text: the answer so far.
    """

    def __init__(self, question: Question, model: Model, arrival: float) -> None:
        self.question = question
        self.model = model
        self.loaded = model.loaded  # what answers, once its turn has come; a reload may change it before
        self.arrival = arrival
        self.frame: Frame | None = None
        self.text = ""
        self.tokens = 0
        self.ticket: Ticket[Answer] | None = None
        self._on_progress: Callable[[Inquiry, str], None] | None = None

    async def answer(
        self, wake: Callable[[], None], on_progress: Callable[[Inquiry, str], None] | None = None
    ) -> Answer:
        """Wait for the answer without holding the executor.

        Args:
            wake: wakes the executor that awaits this.
            on_progress: called on the inference thread with what is new in the text ('' between stages).

        Raises:
            MobileVLMError: every reason for which there is no answer.
        """
        self._on_progress = on_progress
        timeout = self.question.timeout
        remaining = None if timeout is None else max(0.0, timeout - (monotonic() - self.arrival))
        self.ticket = self.model.worker.submit(
            self._work, priority=Priority.QUESTION, timeout=remaining, on_step=self._step
        )
        done: Future = Future()

        def finished(_: Any) -> None:  # on the inference thread
            done.set_result(None)
            wake()  # an executor that waits does not look at futures by itself

        self.ticket.future.add_done_callback(finished)
        await done
        answer: Answer = self.ticket.future.result()
        return answer

    def cancel(self) -> None:
        """Stop at the next token."""
        if self.ticket is not None:
            self.model.worker.cancel(self.ticket)

    def _work(self) -> Generator[str, None, Answer]:
        queued = monotonic() - self.arrival
        self.loaded = self.model.loaded
        self.frame = self.question.frame()
        answer = yield from self.loaded.assistant.steps(self.frame, self.question.request)
        return with_queue_time(answer, queued)

    def _step(self, piece: str) -> None:
        self.text += piece
        self.tokens += bool(piece)
        if self._on_progress is not None:
            self._on_progress(self, piece)


def fill(result: Any, inquiry: Inquiry | None, outcome: Answer | BaseException, arrival: float) -> None:
    """Write an answer, or the reason why there is none, into a service response or an action result."""
    if isinstance(outcome, BaseException):
        result.status = status_of(outcome)
        result.latency = LatencyMessage(total=monotonic() - arrival)
        if isinstance(outcome, (RequestTimeout, RequestCancelled)) and inquiry is not None:
            result.answer = inquiry.text.strip()
            result.finish_reason = "timeout" if isinstance(outcome, RequestTimeout) else "cancelled"
    else:
        result.status = Status(code=Status.OK)
        result.latency = latency_message(outcome.latency, monotonic() - arrival)
        result.answer = outcome.text
        result.confidence = outcome.confidence
        result.choice_probabilities = list(outcome.choice_probabilities)
        result.finish_reason = outcome.finish_reason
        result.prompt_tokens = outcome.prompt_tokens
        result.cached_tokens = outcome.reused_tokens
        result.generated_tokens = outcome.generated_tokens
    if inquiry is not None:
        _fill_source(result, inquiry)


def _fill_source(result: Any, inquiry: Inquiry) -> None:
    result.camera = inquiry.question.label
    result.model_id = inquiry.loaded.model_id
    result.backend = inquiry.loaded.runtime.backend_name
    if result.status.code == Status.OK:
        result.choices = list(inquiry.question.request.choices)
        threshold = inquiry.question.fields.abstain_threshold
        if result.confidence < threshold:
            result.abstained = True
            result.status.message = (
                f"the best guess {result.answer!r} has confidence {result.confidence:.2f}, below "
                f"abstain_threshold {threshold:.2f}"
            )
            result.answer = ""
    if inquiry.frame is not None:
        result.header = header_of(inquiry.frame)


def header_of(frame: Frame) -> Header:
    """The header that a frame came with."""
    return Header(stamp=to_time_message(frame.stamp_ns), frame_id=frame.frame_id)


def latency_message(latency: Latency, total: float) -> LatencyMessage:
    """The latency split as a message, seconds."""
    return LatencyMessage(
        queue=latency.queue,
        encode=latency.encode,
        prefill=latency.prefill,
        decode=latency.decode,
        total=total,
    )
