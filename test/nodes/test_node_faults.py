# SPDX-License-Identifier: Apache-2.0
"""A node in this process whose engine breaks: each question hears it, and the next one is answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import rclpy
from fixtures.in_process import LIMIT, InProcess
from mobilevlm_msgs.msg import MonitorState, Status
from mobilevlm_msgs.srv import ReloadBundle
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.nodes import mobilevlm_node, name_watch
from mobilevlm_ros.nodes.services import reload_server
from mobilevlm_ros.ros.images.messages import image_message

MONITORS = Path(__file__).parents[2] / "config" / "monitors.yaml"


class Panic(BaseException):
    """What a library in Rust raises when it gives up (pyo3's PanicException is none of Exception's kind)."""


FAULTS = [
    (EngineError("the GPU is gone"), Status.ENGINE_ERROR, "the GPU is gone"),
    (MemoryError(), Status.INTERNAL_ERROR, "MemoryError"),
    (OSError(24, "Too many open files"), Status.INTERNAL_ERROR, "Too many open files"),
    (Panic("index out of bounds"), Status.ENGINE_ERROR, "Panic: index out of bounds"),
    (SystemExit(3), Status.ENGINE_ERROR, "SystemExit"),
]


class Breaks:
    """The assistant, but for its answers: they break at the first or at a later step."""

    def __init__(self, assistant: Any, fault: BaseException, steps: int) -> None:
        self._assistant, self._fault, self._steps = assistant, fault, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._assistant, name)

    def steps(self, *_: Any) -> Any:
        for _step in range(self._steps):
            yield "word "
        raise self._fault

    steps_many = steps


@pytest.fixture(scope="module")
def running(any_bundle: Path) -> Iterator[InProcess]:
    made = InProcess(any_bundle, "faulty", monitors_file=MONITORS)
    yield made
    made.close()


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("fault", "code", "told"), FAULTS, ids=lambda value: type(value).__name__)
def test_a_broken_engine_is_a_status_and_the_next_question_is_answered(
    running: InProcess, fault: BaseException, code: int, told: str, steps: int
) -> None:
    good, faults = running.model.loaded, running.model.scheduler.faults
    running.model.loaded = replace(good, assistant=Breaks(good.assistant, fault, steps))  # type: ignore[arg-type]
    status = running.status()
    assert status.code == code and told in status.message
    assert running.model.scheduler.faults == faults + (not isinstance(fault, EngineError))
    running.model.loaded = good
    assert running.status().ok


@pytest.mark.parametrize("fault", [EngineError("the GPU is gone"), MemoryError(), Panic("index")], ids=repr)
def test_an_engine_that_breaks_in_a_batch_of_monitors_makes_all_unknown_and_they_come_back(
    running: InProcess, fault: BaseException
) -> None:
    node = running.client.node
    heard: list[MonitorState] = []
    # Volatile: what was told before is another test's.
    listener = node.create_subscription(MonitorState, "/faulty/faulty/monitors", heard.append, 50)
    publisher = node.create_publisher(Image, "/faulty/image", 2)
    good, faults = running.model.loaded, running.model.scheduler.faults

    def until(told: Callable[[MonitorState], bool]) -> None:
        heard.clear()
        end = monotonic() + LIMIT
        while {state.name for state in heard if told(state)} != {"person", "path_blocked", "red_light"}:
            assert monotonic() < end, [(state.name, state.status) for state in heard]
            header = Header(stamp=node.get_clock().now().to_msg(), frame_id="optical")
            publisher.publish(image_message(np.full((48, 64, 3), 90, np.uint8), header))
            running.client.spin(0.1)

    until(lambda state: state.status.code == Status.OK)
    broken = Breaks(good.assistant, fault, 1)
    running.model.loaded = replace(good, assistant=broken)  # type: ignore[arg-type]
    until(lambda state: state.status.code in (Status.ENGINE_ERROR, Status.INTERNAL_ERROR))
    assert all(math.isnan(s.probability) for s in heard if s.status.code != Status.OK)
    assert running.model.scheduler.faults > faults or isinstance(fault, EngineError)
    running.model.loaded = good
    until(lambda state: state.status.code == Status.OK)
    assert running.status().ok
    node.destroy_publisher(publisher)
    node.destroy_subscription(listener)


def test_a_panic_while_a_bundle_is_loaded_keeps_the_old_one(
    running: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panics(_: Any) -> Any:
        raise Panic("no such operator")

    monkeypatch.setattr(reload_server, "load_bundle", panics)
    node = running.client.node
    client = node.create_client(ReloadBundle, "/faulty/faulty/reload_bundle")
    assert client.wait_for_service(LIMIT)
    future = client.call_async(ReloadBundle.Request())
    for _ in range(600):
        running.client.spin(0.1)
        if future.done():
            break
    status = future.result().status
    assert status.code == Status.ENGINE_ERROR and "Panic: no such operator" in status.message
    node.destroy_client(client)
    assert running.status().ok


def test_another_node_of_the_same_name_is_warned_of(
    running: InProcess, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(name_watch, "PATIENCE", 1)
    context = Context()
    rclpy.init(context=context)
    twin = rclpy.create_node("faulty", namespace="/faulty", context=context)
    told, end = "", monotonic() + LIMIT
    while "another node is called /faulty/faulty too" not in told and monotonic() < end:
        running.client.spin(0.1)
        told += capfd.readouterr().err
    twin.destroy_node()
    context.try_shutdown()
    assert "another node is called /faulty/faulty too" in told and "-r __ns:=" in told


def test_a_panic_at_the_start_leaves_a_node_that_says_why(
    running: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panics(_: Any) -> Any:
        raise Panic("no such operator")

    monkeypatch.setattr(mobilevlm_node, "load_bundle", panics)
    node = mobilevlm_node.MobileVLMNode("panicked")
    try:
        assert node.node_state.model is None and node.node_state.status.code == Status.ENGINE_ERROR
        assert "Panic: no such operator" in node.node_state.status.message
        monkeypatch.undo()
        assert node.set_parameters([Parameter("bundle", value=running.model.loaded.settings.bundle)])
        node.trigger_configure()
        assert node.node_state.model is not None
    finally:
        node.close(LIMIT)
        node.destroy_node()
