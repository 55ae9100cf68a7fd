# SPDX-License-Identifier: Apache-2.0
"""A client whose reader of responses the server discovers late gets its response all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor

from mobilevlm_ros.demo.node_process import Child
from mobilevlm_ros.ros import delivery
from mobilevlm_ros.ros.delivery import Redelivery
from mobilevlm_ros.ros.resources import private_environment

SHIM = Path(__file__).parents[1] / "data" / "ros" / "late_readers.c"
LATE = 1500
"""Milliseconds; the middleware itself waits 100."""

UDP = """<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com"><profiles>
<transport_descriptors><transport_descriptor><transport_id>udp</transport_id><type>UDPv4</type>
</transport_descriptor></transport_descriptors>
<participant profile_name="p" is_default_profile="true"><rtps><userTransports><transport_id>udp</transport_id>
</userTransports><useBuiltinTransports>false</useBuiltinTransports></rtps></participant></profiles></dds>"""
"""So that all of discovery goes through the functions that the shim replaces."""

PLAIN = """
import json, time
import rclpy
from action_msgs.srv import CancelGoal
from mobilevlm_msgs.action import AskImage as Action
from mobilevlm_msgs.srv import AskImage, ReloadBundle
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor

rclpy.init()
node = rclpy.create_node("plain")
executor = SingleThreadedExecutor()
executor.add_node(node)
kinds = {
    "/ask_image": AskImage,
    "/mobilevlm/reload_bundle": ReloadBundle,
    "/mobilevlm/get_parameters": GetParameters,
    "/ask/_action/send_goal": Action.Impl.SendGoalService,
    "/ask/_action/cancel_goal": CancelGoal,
    "/ask/_action/get_result": Action.Impl.GetResultService,
}
clients = {name: node.create_client(kind, name) for name, kind in kinds.items()}
assert all(client.wait_for_service(60.0) for client in clients.values())
sent = {name: client.call_async(kinds[name].Request()) for name, client in clients.items()}
began, end = time.monotonic(), time.monotonic() + 30.0
while not all(future.done() for future in sent.values()) and time.monotonic() < end:
    executor.spin_once(timeout_sec=0.1)
lost = [name for name, future in sent.items() if not future.done()]
print(json.dumps({"lost": lost, "seconds": time.monotonic() - began}), flush=True)
"""


@pytest.fixture
def ros() -> Iterator[Any]:
    rclpy.init()
    node = rclpy.create_node("redelivers")
    yield node
    node.destroy_node()
    rclpy.shutdown()


def spin_until(node: Any, condition: Callable[[], Any]) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = monotonic() + 60.0
    while not condition():
        assert monotonic() < end
        executor.spin_once(timeout_sec=0.1)
    executor.remove_node(node)


class Sends:
    """A service whose first `losses` responses are lost, as rclpy tells it."""

    srv_name = "/lossy"

    def __init__(self, losses: int, error: Exception | None = None) -> None:
        self.losses, self.error = losses, error
        self.tried: list[tuple[Any, Any]] = []

    def send_response(self, response: Any, header: Any) -> None:
        self.tried.append((response, header))
        if len(self.tried) <= self.losses:
            if self.error is not None:
                raise self.error
            text = "failed to send response (timeout): client will not receive response"
            warnings.warn(text, RuntimeWarning, stacklevel=1)


@pytest.mark.parametrize("before_jazzy", [False, True])
def test_a_lost_response_is_sent_until_it_arrives(ros: Any, before_jazzy: bool, monkeypatch: Any) -> None:
    class RCLError(RuntimeError):
        pass

    monkeypatch.setattr(delivery.rclpy_implementation, "RCLError", RCLError)
    error = RCLError("failed to send response: client will not receive response, at rmw_response.cpp:154")
    redelivery, lossy = Redelivery(ros), Sends(3, error if before_jazzy else None)
    redelivery.cover(lossy)
    lossy.send_response("answer", "header")
    assert len(lossy.tried) == 1 and redelivery.pending == 1
    spin_until(ros, lambda: not redelivery.pending)
    assert lossy.tried == [("answer", "header")] * 4
    assert (redelivery.redelivered, redelivery.given_up) == (1, 0)


def test_what_arrives_is_sent_once_and_other_troubles_are_not_hidden(ros: Any) -> None:
    redelivery, fine = Redelivery(ros), Sends(0)
    redelivery.cover(fine)
    fine.send_response("answer", "header")
    assert len(fine.tried) == 1 and not redelivery.pending
    broken = Sends(1, TypeError("no response"))
    redelivery.cover(broken)
    with pytest.raises(TypeError, match="no response"):
        broken.send_response(None, "header")
    chatty = SimpleNamespace(
        srv_name="/chatty", send_response=lambda *_: warnings.warn("old", DeprecationWarning, stacklevel=1)
    )
    redelivery.cover(chatty)
    with pytest.warns(DeprecationWarning, match="old"):
        chatty.send_response("answer", "header")
    assert not redelivery.pending


def test_a_client_that_is_never_found_is_given_up(ros: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(delivery, "RETRY_FOR", 0.0)
    redelivery, hopeless = Redelivery(ros), Sends(1000)
    redelivery.cover(hopeless)
    hopeless.send_response("answer", "header")
    spin_until(ros, lambda: not redelivery.pending)
    assert redelivery.given_up == 1 and len(hopeless.tried) == 2


def test_what_waits_is_bounded_and_one_failure_a_turn_holds_up_the_others(ros: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(delivery, "MOST_PENDING", 4)
    redelivery, hopeless = Redelivery(ros), Sends(1000)
    redelivery.cover(hopeless)
    for number in range(6):
        hopeless.send_response(number, "header")
    assert redelivery.pending == 4 and redelivery.given_up == 2
    spin_until(ros, lambda: len(hopeless.tried) >= 9)
    assert [response for response, _ in hopeless.tried[6:9]] == [2, 3, 4]  # each in its turn


def test_late_readers_cost_no_client_its_response(
    any_bundle: Path, compile_library: Callable[..., Path], tmp_path: Path
) -> None:
    """Of the service, the action's three, `reload_bundle` and a parameter's, all asked before it is known."""
    (tmp_path / "udp.xml").write_text(UDP)
    shim = compile_library(SHIM, tmp_path / "late.so", "-ldl", "-lpthread")
    environment = {
        **private_environment(dict(os.environ)),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(tmp_path / "udp.xml"),
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(tmp_path / "udp.xml"),
    }
    parameters = {"bundle": any_bundle, "threads": 1, "self_test": False}
    late = {**environment, "LD_PRELOAD": str(shim), "LATE_MS": str(LATE)}
    with Child("late", "mobilevlm_ros.nodes.mobilevlm_node", parameters, late) as child:
        done = subprocess.run(
            [sys.executable, "-c", PLAIN], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr + child.log()
        told = json.loads(done.stdout.splitlines()[-1])
    assert told["lost"] == [], child.log()
    assert told["seconds"] > LATE / 2000  # else the readers were not late, and the test tells nothing
