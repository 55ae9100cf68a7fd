# SPDX-License-Identifier: Apache-2.0
"""When a monitor's state is no longer known: in this process, with a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from mobilevlm_msgs.msg import Status
from rclpy.context import Context
from rclpy.node import Node

from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.inference.monitoring.hysteresis import State
from mobilevlm_ros.inference.monitoring.monitors import Monitor
from mobilevlm_ros.inference.scheduler import Scheduler
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.nodes.publishers import monitors as module
from mobilevlm_ros.nodes.publishers.monitors import Monitors, Watch

LIMIT = 60.0
STEPS, STEP = 5, 2.0  # of an evaluation, and the seconds that each takes by the test's clock


class SlowModel:
    """A model that takes STEPS steps for an answer; each waits for the test."""

    model_id = "slow"

    def __init__(self, world: World) -> None:
        self.loaded = self
        self.assistant = self
        self.scheduler = Scheduler()
        self._world = world

    def steps_many(self, frame: Frame, requests: list[Any]) -> Generator[str, None, list[Answer]]:
        for _ in range(STEPS):
            self._world.now += STEP
            yield ""
            self._world.stepped.set()
            assert self._world.go_on.acquire(timeout=LIMIT)
        return [Answer("yes", 0.9, choice_probabilities=(0.9, 0.1)) for _ in requests]


class World:
    """The monitor 'person' at work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "monotonic", lambda: self.now)
        self.stepped, self.go_on = threading.Event(), threading.Semaphore(0)
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = Node("monitors", context=self._context)
        self._node.declare_parameter("max_age", 2.0)
        self.model = SlowModel(self)
        self.monitors = Monitors(self._node, self.model, InferenceMetrics())  # type: ignore[arg-type]
        frame = Frame(np.zeros((8, 8, 3), np.uint8), 5)
        camera: Any = SimpleNamespace(name="", label="the camera", frame=lambda max_age: frame)
        self.monitors.start([Monitor("person", "Is there a person?")], {"": camera})

    @property
    def watch(self) -> Watch:
        return self.monitors.watches[0]

    def let_it_finish(self) -> None:
        """Until the evaluation under way has ended."""

        def nothing() -> Generator[None, None, None]:
            yield

        self.model.scheduler.submit(nothing, priority=Priority.CAPTION).future.result(LIMIT)

    def close(self) -> None:
        self.go_on.release(100)
        assert self.model.scheduler.close(LIMIT)
        self.monitors.close("the test is over")
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(monkeypatch)
    yield made
    made.close()


def test_an_evaluation_that_takes_long_is_no_reason_to_know_nothing(world: World) -> None:
    world.monitors.tick()
    for _ in range(STEPS):
        assert world.stepped.wait(LIMIT)
        world.stepped.clear()
        world.monitors.tick()
        assert world.watch.status.code == Status.UNKNOWN, world.watch.status.message
        world.go_on.release()
    assert STEPS * STEP > module.BATCH_TIMEOUT
    world.let_it_finish()
    assert world.watch.state is State.RAISED and world.watch.probability == pytest.approx(0.9)


def test_an_evaluation_that_has_no_turn_says_so(world: World) -> None:
    held = threading.Event()

    def question() -> Generator[None, None, None]:
        held.wait(LIMIT)
        yield

    world.model.scheduler.submit(question)
    world.monitors.tick()
    world.now += 0.9 * module.BATCH_TIMEOUT
    world.monitors.tick()
    assert world.watch.status.code == Status.UNKNOWN
    world.now += 0.2 * module.BATCH_TIMEOUT
    world.monitors.tick()
    assert world.watch.status.code == Status.BUSY and "no turn for 6 s" in world.watch.status.message
    held.set()
