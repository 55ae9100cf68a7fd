# SPDX-License-Identifier: Apache-2.0
"""What `mobilevlm checks --node` says of a node in each state, and of one that is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lifecycle_msgs.srv import GetState

from mobilevlm_ros.cli import main
from mobilevlm_ros.client.node_state import lifecycle_state
from mobilevlm_ros.client.own_node import OwnNode
from mobilevlm_ros.errors import RequestTimeout

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def state() -> Iterator[dict[str, str]]:
    """The label that a node called /arm/eyes gives for its state."""
    label = {"is": "active"}

    def serve(_: Any, response: Any) -> Any:
        response.current_state.label = label["is"]
        return response

    own = OwnNode("eyes", None)
    own.node.create_service(GetState, "/arm/eyes/get_state", serve)
    own.start()
    yield label
    own.close()


def test_a_node_is_well_when_it_is_active(state: dict[str, str], capsys: Captured) -> None:
    assert main(["checks", "--node", "/arm/eyes"]) == 0
    assert "ok       /arm/eyes: active" in capsys.readouterr().out
    state["is"] = "inactive"
    assert main(["checks", "--node", "/arm/eyes", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert told["detail"] == "inactive" and "ros2 lifecycle set /arm/eyes activate" in told["remedy"]


def test_a_node_that_is_not_there_fails(capsys: Captured) -> None:
    with pytest.raises(RequestTimeout, match="no node serves nobody/get_state"):
        lifecycle_state("nobody", timeout=0.2)
