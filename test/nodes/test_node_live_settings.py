# SPDX-License-Identifier: Apache-2.0
"""Parameters that change while the model answers: every answer is from one set of them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import rclpy
from mobilevlm_msgs.msg import Status
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.nodes.live_settings import LiveParameters, default_settings
from mobilevlm_ros.nodes.model_manager import LoadedBundle, ModelManager, load_bundle
from mobilevlm_ros.nodes.node_state import NodeState
from mobilevlm_ros.nodes.parameters.parameters import Parameters

LIMIT = 60.0
FRAME = Frame(np.full((48, 48, 3), 90, np.uint8))
YES_NO = Request("Is it?", choices=("yes", "no"))
SETS: tuple[dict[str, Any], ...] = (
    {"system_prompt": "Be brief.", "session_tokens": 500},
    {"system_prompt": "You see the road ahead of a car, in the rain, at night.", "session_tokens": 900},
)


@pytest.fixture
def model(any_bundle: Path) -> Iterator[ModelManager]:
    made = ModelManager(load_bundle(default_settings(bundle=str(any_bundle), threads=1)), 16)
    yield made
    assert made.close(LIMIT)


@pytest.fixture
def node() -> Iterator[Any]:
    rclpy.init()
    made = rclpy.create_node("settings")
    Parameters(made, lambda: False)
    yield made
    made.destroy_node()
    rclpy.shutdown()


def observed(loaded: LoadedBundle, session: str) -> Generator[str, None, tuple[int, int]]:
    """What two of the settings do: positions of the whole prompt, and of a new session."""
    budget = loaded.sessions.get(session, True, loaded.session_limits).token_budget
    answer = yield from loaded.assistant.steps(FRAME, YES_NO)
    return answer.prompt_tokens, budget


def test_no_answer_is_from_half_of_a_change(model: ModelManager, node: Any) -> None:
    LiveParameters(node, NodeState(Status(code=Status.OK), model))
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def change(values: dict[str, Any]) -> None:
        result = node.set_parameters_atomically(
            [Parameter(name, value=value) for name, value in values.items()]
        )
        assert result.successful, result.reason
        while model.loaded.settings.live.session_tokens != values["session_tokens"]:
            executor.spin_once(timeout_sec=1.0)

    def work(session: str) -> Generator[str, None, tuple[int, int]]:
        return observed(model.loaded, session)

    alone = []
    for values in SETS:
        change(values)
        alone.append(model.scheduler.submit(lambda: work("alone")).future.result(LIMIT))
    assert len(set(alone)) == 2

    jobs: list[Any] = []
    end = monotonic() + LIMIT
    while {job.future.result() for job in jobs if job.future.done()} < set(alone) or len(jobs) < 40:
        assert monotonic() < end
        for values in SETS:
            change(values)  # while the inference thread works
            if model.scheduler.queued < 8:
                jobs.append(model.scheduler.submit(lambda: work("busy")))
    assert {job.future.result(LIMIT) for job in jobs} == set(alone)


def test_a_value_that_cannot_take_effect_is_refused_and_nothing_changes(
    model: ModelManager, node: Any
) -> None:
    LiveParameters(node, NodeState(Status(code=Status.OK), model))
    before = model.loaded
    result = node.set_parameters([Parameter("preset", value="pirate")])[0]
    assert not result.successful and "'driving'" in result.reason
    assert model.loaded is before and node.get_parameter("preset").value == ""


def test_a_bundle_with_other_settings_shares_what_is_remembered(model: ModelManager) -> None:
    """A change of a parameter forgets no conversation and no picture."""
    before = model.loaded
    after = before.with_live(replace(before.settings.live, system_prompt="Be brief.", sessions_max=3))
    assert after.sessions is before.sessions and after.runtime is before.runtime
    assert after.session_limits.max_sessions == 3 and before.session_limits.max_sessions == 16
    for loaded in (before, after, before, after):
        answer = loaded.assistant.ask(FRAME, YES_NO)
    assert answer.latency.encode == 0 and answer.reused_tokens > loaded.runtime.vision.num_tokens
