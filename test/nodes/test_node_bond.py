# SPDX-License-Identifier: Apache-2.0
"""The heartbeat for nav2's lifecycle manager.

The messages of the package `bond` come with an apt ROS alone. Here a message of ours stands in for them: it
is what bond/msg/Status is to Python, and is published as a text, so that real subscribers hear it.
"""

from __future__ import annotations

import json
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from fixtures.in_process import LIMIT, InProcess
from lifecycle_msgs.msg import State
from mobilevlm_msgs.msg import Status
from rclpy.parameter import Parameter
from std_msgs.msg import Header, String

from mobilevlm_ros.nodes import mobilevlm_node

FIELDS = ("id", "instance_id", "active", "heartbeat_timeout", "heartbeat_period")


class StandIn(String):
    """The fields of bond/msg/Status, which a String carries."""

    def __init__(self) -> None:
        super().__init__()
        self.header = Header()

    header: Any
    id: str
    instance_id: str
    active: bool
    heartbeat_timeout: float
    heartbeat_period: float
    __slots__ = ("header", *FIELDS)


class Publisher:
    """Of a node; what it is given goes out as a String."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def publish(self, message: StandIn) -> None:
        told = {name: getattr(message, name) for name in FIELDS}
        self._real.publish(String(data=json.dumps({**told, "sec": message.header.stamp.sec})))


@pytest.fixture(scope="module")
def bonded(any_bundle: Path) -> Iterator[InProcess]:
    patch = pytest.MonkeyPatch()
    package, messages = types.ModuleType("bond"), types.ModuleType("bond.msg")
    messages.Status = StandIn  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "bond", package)
    patch.setitem(sys.modules, "bond.msg", messages)
    create = mobilevlm_node.MobileVLMNode.create_publisher
    destroy = mobilevlm_node.MobileVLMNode.destroy_publisher

    def publisher(node: Any, kind: Any, topic: str, *args: Any, **options: Any) -> Any:
        real = create(node, String if kind is StandIn else kind, topic, *args, **options)
        return Publisher(real) if kind is StandIn else real

    patch.setattr(mobilevlm_node.MobileVLMNode, "create_publisher", publisher)
    patch.setattr(
        mobilevlm_node.MobileVLMNode,
        "destroy_publisher",
        lambda node, made: destroy(node, getattr(made, "_real", made)),
    )
    made = InProcess(any_bundle, "bonded", autostart=False, bond_heartbeat_period=0.05)
    yield made
    made.close()
    patch.undo()


def on_executor(running: InProcess, act: Any) -> Any:
    """What `act` returns, on the executor's thread."""
    task = running.executor.create_task(act)
    running.executor.wake()
    end = monotonic() + LIMIT
    while not task.done():
        assert monotonic() < end
        running.client.spin(0.02)
    return task.result()


def test_it_beats_while_the_node_is_active_and_says_when_it_rests(bonded: InProcess) -> None:
    heard: list[dict[str, Any]] = []
    node = bonded.client.node
    node.create_subscription(String, "/bonded/bond", lambda told: heard.append(json.loads(told.data)), 100)

    def until(done: Any) -> None:
        end = monotonic() + LIMIT
        while not done():
            assert monotonic() < end, heard
            bonded.client.spin(0.02)

    on_executor(bonded, bonded.node.trigger_configure)
    until(lambda: node.count_publishers("/bonded/bond") == 1)
    assert not heard  # nav2's nodes beat from activate on
    on_executor(bonded, bonded.node.trigger_activate)
    until(lambda: len(heard) >= 3)
    first = heard[0]
    assert first["id"] == "bonded" and first["active"] and first["sec"] > 0
    assert (first["heartbeat_timeout"], first["heartbeat_period"]) == (4.0, 0.05)
    assert bonded.status().code == Status.OK

    # The executor is held, as by whatever loads: the heart beats.
    release, held = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(LIMIT)

    bonded.executor.create_task(hold)
    bonded.executor.wake()
    assert held.wait(LIMIT)
    before = len(heard)
    until(lambda: len(heard) >= before + 3)
    release.set()

    on_executor(bonded, bonded.node.trigger_deactivate)
    until(lambda: not heard[-1]["active"])
    assert {told["instance_id"] for told in heard} == {first["instance_id"]}
    on_executor(bonded, bonded.node.trigger_activate)
    until(lambda: heard[-1]["active"])
    assert heard[-1]["instance_id"] != first["instance_id"]  # a bond of its own
    on_executor(bonded, bonded.node.trigger_deactivate)
    on_executor(bonded, bonded.node.trigger_cleanup)
    until(lambda: node.count_publishers("/bonded/bond") == 0)
    assert sum(not told["active"] for told in heard) >= 1


def test_without_the_messages_it_is_not_configured_and_says_what_to_install(
    bonded: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bond", None)
    monkeypatch.setitem(sys.modules, "bond.msg", None)
    on_executor(bonded, bonded.node.trigger_configure)
    assert bonded.node._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED
    told = bonded.status()
    assert told.code == Status.NOT_ACTIVE and "ros-$ROS_DISTRO-bond" in told.message
    assert on_executor(
        bonded, lambda: bonded.node.set_parameters([Parameter("bond_heartbeat_period", value=0.0)])
    )[0].successful
    on_executor(bonded, bonded.node.trigger_configure)
    assert bonded.node.node_state.model is not None  # without a bond it needs no messages
    on_executor(bonded, bonded.node.trigger_cleanup)
