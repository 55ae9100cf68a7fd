# SPDX-License-Identifier: Apache-2.0
"""One evaluation of monitors with a real model; needs ROS's messages, but no graph."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mobilevlm_msgs")

from mobilevlm_msgs.msg import Status

from mobilevlm_ros.errors import ContextOverflow
from mobilevlm_ros.inference.monitoring.monitors import Monitor
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.nodes.live_settings import default_settings
from mobilevlm_ros.nodes.model_manager import ModelManager, load_bundle
from mobilevlm_ros.nodes.publishers.monitor_batch import MonitorBatch, evaluate
from mobilevlm_ros.ros.status import Refused
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

PERSON = Monitor("person", "Is there a person?")
CONE = Monitor("cone", "Is there a cone?")
LIMIT = 60.0


class StillCamera:
    """A camera whose only frame is `age` seconds old."""

    name = "front"

    def __init__(self, frame: Frame, age: float) -> None:
        self._frame, self._age = frame, age

    def frame(self, max_age: float) -> Frame:
        if 0 <= max_age < self._age:
            raise Refused(Status.STALE_FRAME, "too old")
        return self._frame


@pytest.fixture(scope="module")
def model(nano: Path) -> Iterator[ModelManager]:
    made = ModelManager(load_bundle(default_settings(bundle=str(nano))), 4)
    yield made
    assert made.close(LIMIT)


@pytest.fixture(scope="module")
def camera() -> Any:
    frame = Frame(observe(sample_scene(5), 0.0, 320, 240).image, 5, "optical", "front")  # a person, no cone
    return StillCamera(frame, age=1.0)


def run(model: ModelManager, camera: Any, batch: list[MonitorBatch]) -> str:
    submitted = time.monotonic()
    return model.scheduler.submit(lambda: evaluate(model, camera, batch, submitted)).future.result(LIMIT)


def test_a_batch_is_answered_as_each_question_alone(model: ModelManager, camera: Any) -> None:
    batch = [MonitorBatch(PERSON, 2.0, None), MonitorBatch(CONE, 2.0, None)]
    assert run(model, camera, batch) == model.loaded.model_id
    for evaluation in batch:
        alone = model.loaded.assistant.ask(evaluation.frame, evaluation.monitor.request)
        assert evaluation.answer is not None
        assert evaluation.answer.choice_probabilities == pytest.approx(alone.choice_probabilities, abs=1e-3)
    assert batch[0].answer.text == "yes" and batch[1].answer.text == "no"


def test_the_same_frame_is_not_evaluated_twice(model: ModelManager, camera: Any) -> None:
    first = MonitorBatch(PERSON, 2.0, None)
    run(model, camera, [first])
    again, new = MonitorBatch(PERSON, 2.0, first.frame), MonitorBatch(CONE, 2.0, None)
    run(model, camera, [again, new])
    assert again.answer is None and again.error is None and new.answer is not None


def test_each_monitor_has_its_own_patience(model: ModelManager, camera: Any) -> None:
    hasty, patient, any_age = (MonitorBatch(PERSON, age, None) for age in (0.5, 2.0, -1.0))
    run(model, camera, [hasty, patient, any_age])
    assert isinstance(hasty.error, Refused) and hasty.answer is None
    assert patient.answer is not None and any_age.answer is not None


def test_a_question_that_does_not_fit_fails_alone(model: ModelManager, camera: Any) -> None:
    long = MonitorBatch(Monitor("long", "Is it? " * 3000), 2.0, None)
    good = MonitorBatch(PERSON, 2.0, None)
    run(model, camera, [long, good])
    assert good.answer is not None and good.answer.text == "yes"
    assert isinstance(long.error, ContextOverflow) and long.answer is None
