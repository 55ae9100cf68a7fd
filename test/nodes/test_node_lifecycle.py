# SPDX-License-Identifier: Apache-2.0
"""A node without a usable bundle says so and can be put right; it ends cleanly whatever the signal."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from sensor_msgs.msg import Image

from mobilevlm_ros.nodes.client import AskImageClient
from mobilevlm_ros.nodes.parameters import SPECS


class Second:
    """A node of our own, beside the session's."""

    def __init__(self, graph: Any, **parameters: object) -> None:
        self.graph = graph
        graph.client_of(ChangeState, "/second/change_state")  # known to the node long before it is used
        self.child = graph.start(
            "mobilevlm_node",
            {"threads": 1, **parameters},
            "__node:=second",
            "ask_image:=second/ask_image",
            "ask:=second/ask",
            "image:=second/image",
            "image/compressed:=second/image/compressed",
        )
        self.client = AskImageClient("second/ask_image")
        assert self.client.wait_for_node(90.0), self.child.log()

    def status(self) -> Status:
        picture = np.zeros((48, 48, 3), np.uint8)
        return self.client.ask("Is it?", image=picture, choices=["yes", "no"], timeout=60.0).status

    def state(self) -> int:
        return int(self.graph.call(GetState, "/second/get_state", GetState.Request()).current_state.id)

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.graph.call(ChangeState, "/second/change_state", request, once=True).success)

    def set(self, name: str, value: Any) -> Any:
        kinds = {bool: (1, "bool_value"), int: (2, "integer_value"), float: (3, "double_value")}
        kind, field = kinds.get(type(value), (4, "string_value"))
        wrapped = ParameterValue(**{"type": kind, field: value})
        request = SetParameters.Request(parameters=[Parameter(name=name, value=wrapped)])
        return self.graph.call(SetParameters, "/second/set_parameters", request).results[0]


@pytest.fixture(scope="module")
def second(graph) -> Iterator[Second]:
    made = Second(graph, bundle="/no/such/bundle")
    yield made
    made.client.close()


def test_without_its_bundle_the_node_stays_up_and_says_what_to_do(second: Second) -> None:
    status = second.status()
    assert status.code == Status.BUNDLE_ERROR
    assert "/no/such/bundle" in status.message and "mobilevlm build" in status.message
    assert second.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert "/no/such/bundle" in second.child.log()


def test_a_half_written_bundle_is_refused(second: Second, any_bundle: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(any_bundle, half)
    victim = max(half.iterdir(), key=lambda file: file.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    assert second.set("bundle", str(half)).successful
    assert not second.change(Transition.TRANSITION_CONFIGURE)
    assert second.status().code == Status.BUNDLE_ERROR
    assert victim.name in second.status().message


def test_a_directory_that_is_no_bundle_is_refused(second: Second, tmp_path: Path) -> None:
    assert second.set("bundle", str(tmp_path)).successful
    assert not second.change(Transition.TRANSITION_CONFIGURE)
    assert str(tmp_path) in second.status().message


def test_with_a_good_bundle_it_goes_through_its_life(second: Second, any_bundle: Path) -> None:
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


def test_parameters_change_live_or_are_refused_with_the_reason(second: Second) -> None:
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


def test_every_parameter_is_described(second: Second) -> None:
    request = DescribeParameters.Request(names=[spec.name for spec in SPECS])
    answer = second.graph.call(DescribeParameters, "/second/describe_parameters", request)
    assert all(len(descriptor.description) > 10 for descriptor in answer.descriptors)


def test_two_interrupts_in_a_row_end_it_with_code_0(second: Second) -> None:
    for _ in range(2):
        second.child.process.send_signal(signal.SIGINT)
    assert second.child.process.wait(60) == 0
    assert "Traceback" not in second.child.log()


def test_a_termination_in_the_middle_of_an_answer_ends_it_with_code_0(graph, endless_bundle: Path) -> None:
    node = Second(graph, bundle=endless_bundle)
    assert node.status().code == Status.OK
    client = graph.node.create_client(AskImage, "second/ask_image")
    assert client.wait_for_service(60.0)
    picture = Image(width=8, height=8, encoding="mono8", step=8, data=bytes(64))
    for _ in range(10):
        client.call_async(AskImage.Request(question="What is it?", image=picture, max_tokens=1500))
    refused = AskImageClient("second/ask_image")
    assert refused.ask("", timeout=60.0).status.code == Status.INVALID_QUESTION  # so the others have arrived
    refused.close()
    node.child.process.send_signal(signal.SIGTERM)
    assert node.child.process.wait(60) == 0
    assert "Traceback" not in node.child.log()
    graph.node.destroy_client(client)
    node.client.close()
