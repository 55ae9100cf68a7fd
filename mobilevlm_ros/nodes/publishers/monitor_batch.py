# SPDX-License-Identifier: Apache-2.0
"""One evaluation of the monitors of a camera: one frame, one batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from time import monotonic

from mobilevlm_ros.errors import ContextOverflow, MobileVLMError, QuestionError, without_frames
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.monitoring.monitors import Monitor
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.model_manager import ModelManager


@dataclass(eq=False)
class MonitorBatch:
    """A monitor's part in a batch. Without answer and error there was no new frame.

    Attributes:
        monitor: what is asked.
        max_age: oldest frame that will do, seconds; negative = any.
        before: the frame of the evaluation before, which is not evaluated again.
        frame: the frame that it is about.
        answer: the choices' probabilities.
        error: why there is no answer.
    """

    monitor: Monitor
    max_age: float
    before: Frame | None
    frame: Frame | None = None
    answer: Answer | None = None
    error: Exception | None = None


def evaluate(
    model: ModelManager, camera: Camera, batch: Sequence[MonitorBatch], submitted: float
) -> Generator[str, None, str]:
    """Work for the inference thread: fills the batch in, returns the id of the model that answered.

    Raises:
        EngineError: the model failed; the batch is as it was.
    """
    queued = monotonic() - submitted
    loaded = model.loaded
    frame: Frame | None = None
    # The most patient last: should a newer frame come in between, it is good enough for the others too.
    for max_age in sorted({e.max_age for e in batch}, key=lambda age: age if age >= 0 else float("inf")):
        some = [evaluation for evaluation in batch if evaluation.max_age == max_age]
        try:
            frame = camera.frame(max_age)
        except MobileVLMError as error:
            for evaluation in some:
                evaluation.error = without_frames(error)
    asked = [e for e in batch if e.error is None and frame is not e.before]
    if frame is None or not asked:
        return loaded.model_id
    for evaluation in asked:
        evaluation.frame = frame
    try:
        answers = yield from loaded.assistant.steps_many(frame, [e.monitor.request for e in asked])
    except (QuestionError, ContextOverflow):
        yield from _one_by_one(loaded.assistant, frame, asked)  # only those at fault go without an answer
    else:
        for evaluation, answer in zip(asked, answers):
            evaluation.answer = answer
    for evaluation in asked:
        if evaluation.answer is not None:
            evaluation.answer = evaluation.answer.with_queue_time(queued)
    return loaded.model_id


def _one_by_one(
    assistant: Assistant, frame: Frame, asked: Sequence[MonitorBatch]
) -> Generator[str, None, None]:
    for evaluation in asked:
        try:
            evaluation.answer = yield from assistant.steps(frame, evaluation.monitor.request)
        except (QuestionError, ContextOverflow) as error:
            evaluation.error = without_frames(error)
