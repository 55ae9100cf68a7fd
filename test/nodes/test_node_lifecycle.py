# SPDX-License-Identifier: Apache-2.0
"""A node without a usable bundle says so and can be put right; it ends cleanly whatever the signal."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from mobilevlm_msgs.action import AskImage as AskImageAction
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rcl_interfaces.srv import DescribeParameters
from sensor_msgs.msg import Image

from mobilevlm_ros.nodes.parameters.parameters import SPECS


@dataclass(frozen=True)
class Resources:
    """Of a process: bytes in memory, and its threads."""

    resident: int
    threads: int


def resources(node: Any) -> Resources:
    process = Path("/proc", str(node.child.process.pid))
    pages = int((process / "statm").read_text().split()[1])
    return Resources(pages * resource.getpagesize(), len(list((process / "task").iterdir())))


def published(node: Any) -> set[str]:
    """Topics that a node publishes."""
    return {name for name, _ in node.graph.node.get_publisher_names_and_types_by_node(node.name, "/")}


@pytest.fixture
def mute_bundle(nano: Path, tmp_path: Path) -> Path:
    """A model of another origin, whose answers end before they begin."""
    path = tmp_path / "mute"
    shutil.copytree(nano, path)
    manifest = json.loads((path / "bundle.json").read_text())
    manifest |= {"name": "mute", "source": {}, "stop_ids": list(range(manifest["vocab_size"]))}
    (path / "bundle.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture(scope="module")
def second(second_node) -> Iterator[Any]:
    made = second_node("second", bundle="/no/such/bundle")
    yield made
    made.close()


def test_without_its_bundle_the_node_stays_up_and_says_what_to_do(second: Any) -> None:
    status = second.status()
    assert status.code == Status.BUNDLE_ERROR
    assert "/no/such/bundle" in status.message and "mobilevlm build" in status.message
    assert second.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert "/no/such/bundle" in second.child.log()


def test_a_half_written_bundle_is_refused(second: Any, any_bundle: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(any_bundle, half)
    victim = max(half.iterdir(), key=lambda file: file.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    assert second.set("bundle", str(half)).successful
    assert not second.change(Transition.TRANSITION_CONFIGURE)
    assert second.status().code == Status.BUNDLE_ERROR
    assert victim.name in second.status().message


def test_a_directory_that_is_no_bundle_is_refused(second: Any, tmp_path: Path) -> None:
    assert second.set("bundle", str(tmp_path)).successful
    assert not second.change(Transition.TRANSITION_CONFIGURE)
    assert str(tmp_path) in second.status().message


def test_with_a_good_bundle_it_goes_through_its_life(second: Any, any_bundle: Path) -> None:
    assert second.set("bundle", str(any_bundle)).successful
    assert second.change(Transition.TRANSITION_CONFIGURE)
    assert second.status().code == Status.NOT_ACTIVE
    assert second.change(Transition.TRANSITION_ACTIVATE)
    assert second.status().code == Status.OK
    assert second.change(Transition.TRANSITION_DEACTIVATE)
    assert second.status().code == Status.NOT_ACTIVE
    assert second.change(Transition.TRANSITION_CLEANUP)
    assert second.status().code == Status.NOT_ACTIVE
    assert second.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert second.change(Transition.TRANSITION_CONFIGURE)
    assert second.change(Transition.TRANSITION_ACTIVATE)
    assert second.status().code == Status.OK
    assert second.state() == State.PRIMARY_STATE_ACTIVE


def test_cleanup_ends_the_thread_returns_the_memory_and_removes_the_topics(second: Any) -> None:
    assert second.state() == State.PRIMARY_STATE_ACTIVE
    assert second.status().code == Status.OK  # has used its memory
    topics = {"/second/captions", "/second/annotated_image"}
    assert topics <= published(second)
    before = resources(second)
    assert second.change(Transition.TRANSITION_DEACTIVATE)
    assert second.change(Transition.TRANSITION_CLEANUP)
    after = resources(second)
    assert after.threads < before.threads
    assert after.resident < before.resident - 4e6, (before, after)
    second.graph.until(lambda: not topics & published(second), "the end of the topics")
    assert second.change(Transition.TRANSITION_CONFIGURE)
    assert second.change(Transition.TRANSITION_ACTIVATE)


def test_a_model_that_fails_its_self_test_is_not_activated(second_node, mute_bundle: Path) -> None:
    node = second_node("mute", bundle=mute_bundle)
    assert node.status().code == Status.ENGINE_ERROR
    assert "empty answer" in node.status().message
    assert node.state() == State.PRIMARY_STATE_INACTIVE
    assert "cannot be activated: the self-test" in node.child.log()
    told = []
    subscription = node.graph.node.create_subscription(DiagnosticArray, "/diagnostics", told.append, 10)
    node.graph.until(
        lambda: any(
            status.name == "mute: model" and status.level == DiagnosticStatus.ERROR
            for message in told
            for status in message.status
            if "empty answer" in status.message
        ),
        "the reason in /diagnostics",
    )
    node.graph.node.destroy_subscription(subscription)
    assert node.set("self_test", False).successful
    assert node.change(Transition.TRANSITION_ACTIVATE)
    assert node.status().code == Status.OK
    node.close()


def test_parameters_change_live_or_are_refused_with_the_reason(second: Any) -> None:
    assert second.state() == State.PRIMARY_STATE_ACTIVE
    assert second.set("max_age", 5.0).successful
    assert second.set("caption_rate", 0.0).successful
    for name, value, reason in (
        ("threads", 2, "deactivate and clean it up first"),
        ("bundle", "/tmp", "deactivate and clean it up first"),
        ("max_tokens", 0, "max_tokens"),
        ("caption_rate", -1.0, "caption_rate"),
        ("max_age", float("nan"), "max_age"),
        ("caption_prompt", "  ", "empty"),
    ):
        result = second.set(name, value)
        assert not result.successful and reason in result.reason, (name, result.reason)
    assert second.status().code == Status.OK


def test_every_parameter_is_described(second: Any) -> None:
    request = DescribeParameters.Request(names=[spec.name for spec in SPECS])
    answer = second.graph.call(DescribeParameters, "/second/describe_parameters", request)
    assert all(len(descriptor.description) > 10 for descriptor in answer.descriptors)


def test_two_interrupts_in_a_row_end_it_with_code_0(second: Any) -> None:
    for _ in range(2):
        second.child.process.send_signal(signal.SIGINT)
    assert second.child.process.wait(60) == 0
    assert "Traceback" not in second.child.log()


def test_a_termination_in_the_middle_of_answers_tells_everyone(graph, endless_bundle: Path) -> None:
    client = graph.client_of(AskImage, "/leaving/ask_image")
    # In a namespace: before Kilted, remapping does not reach the name of an action.
    child = graph.start("mobilevlm_node", {"threads": 1, "bundle": endless_bundle}, "__ns:=/leaving")
    picture = Image(width=8, height=8, encoding="mono8", step=8, data=bytes(64))
    long = {"question": "What is it?", "image": picture, "max_tokens": 1500}
    actions = None
    try:
        short = AskImage.Request(question="Is it?", image=picture, max_tokens=1)
        assert graph.call(AskImage, "/leaving/ask_image", short).status.code == Status.OK, child.log()
        actions = graph.action("/leaving/ask")
        waiting = [client.call_async(AskImage.Request(**long)) for _ in range(10)]
        sent = [actions.send_goal_async(AskImageAction.Goal(**long)) for _ in range(2)]
        graph.until(lambda: all(goal.done() for goal in sent), "accepting goals")
        waiting += [goal.result().get_result_async() for goal in sent]
        empty = graph.call(AskImage, "/leaving/ask_image", AskImage.Request())
        assert empty.status.code == Status.INVALID_QUESTION  # so the questions before it have arrived

        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(60) == 0
        assert "Traceback" not in child.log()
        graph.until(lambda: all(future.done() for future in waiting), "a response to everyone")
        responses = [future.result() for future in waiting]
        codes = [getattr(response, "result", response).status.code for response in responses]
        assert codes == [Status.CANCELLED] * 12
    finally:
        if actions is not None:
            actions.destroy()
        child.stop()
        graph.children.remove(child)


@pytest.mark.parametrize(
    ("transitions", "number"),
    [
        ((), signal.SIGTERM),  # unconfigured
        ((Transition.TRANSITION_CONFIGURE,), signal.SIGINT),  # inactive
        ((Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,), signal.SIGTERM),  # finalized
    ],
)
def test_a_signal_ends_it_with_code_0_in_any_state(
    second_node, any_bundle: Path, transitions: tuple[int, ...], number: signal.Signals
) -> None:
    node = second_node("second", bundle=any_bundle, autostart=False)
    assert node.status().code == Status.NOT_ACTIVE
    assert all(node.change(transition) for transition in transitions)
    node.child.process.send_signal(number)
    assert node.child.process.wait(60) == 0
    assert "Traceback" not in node.child.log()
    node.close()


ENDLESS = """
import hashlib, sys
real = hashlib.sha256
def sha256(*arguments, **options):
    if sys._getframe(1).f_globals["__name__"] == "mobilevlm_ros.engine.sealed_file":
        open({pipe!r}, "rb").read()
    return real(*arguments, **options)
hashlib.sha256 = sha256
"""
"""Of a node's own interpreter: verifying a bundle takes for ever."""


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_a_signal_while_it_loads_ends_it_with_code_0(
    graph,
    any_bundle: Path,
    tmp_path: Path,
    signals: tuple[signal.Signals, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "sitecustomize.py").write_text(ENDLESS.format(pipe=str(pipe)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    child = graph.start("mobilevlm_node", {"bundle": any_bundle}, "__node:=loading")

    def reading() -> int | None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            return None

    writer = graph.until(reading, "the loading")
    for number in signals:
        child.process.send_signal(number)
    assert child.process.wait(60) == 0
    assert "Traceback" not in child.log()
    os.close(writer)
    graph.children.remove(child)
    child.stop()
