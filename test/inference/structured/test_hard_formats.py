# SPDX-License-Identifier: Apache-2.0
"""Formats that take long to try out hold up nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import Busy, OptionError, RequestCancelled
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.scheduler import Scheduler
from mobilevlm_ros.inference.types import AnswerFormat, Frame, Request

pytest.importorskip("llguidance")
LIMIT = 120.0
PICTURE = Frame(np.full((48, 48, 3), 128, np.uint8))


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(capacity=32)
    yield made
    assert made.close(LIMIT)


def hard(number: int) -> Request:
    """One that the compiler would work on for hours."""
    schema = {"allOf": [{"type": "integer", "multipleOf": 10007 + 2 * number}, {"multipleOf": 10009}]}
    return Request("How many?", answer_format=AnswerFormat("json", json_schema=json.dumps(schema)))


def test_a_plain_question_is_answered_before_twelve_hard_formats(
    any_bundle: Path, scheduler: Scheduler
) -> None:
    assistant = Assistant(load_runtime(any_bundle, "onnxruntime-cpu", threads=1))
    slow = [scheduler.submit(lambda n=n: assistant.steps(PICTURE, hard(n))) for n in range(12)]
    easy = Request("Is it?", choices=("yes", "no"))
    for _ in range(3):
        answer = scheduler.submit(lambda: assistant.steps(PICTURE, easy)).future.result(LIMIT)
        assert answer.text in ("yes", "no")
    assert not any(job.future.done() for job in slow[2:])  # two are tried at a time
    assert scheduler.queued >= 10
    for job in slow:
        scheduler.cancel(job)
    ends = [job.future.exception(LIMIT) for job in slow]
    assert all(isinstance(end, RequestCancelled | OptionError | Busy) for end in ends)
