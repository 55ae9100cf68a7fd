# SPDX-License-Identifier: Apache-2.0
"""What conversations start from: system prompt, presets and the limits of sessions, as the parameters say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.prompt.presets import system_prompt
from mobilevlm_ros.nodes.node_state import NodeState

_LIVE = ("system_prompt", "preset", "sessions_max", "session_idle", "session_tokens", "sessions_mb")


class LiveSettings:
    """Lets changes of the live parameters take effect. Everything runs on the executor's thread."""

    def __init__(self, node: Node, node_state: NodeState) -> None:
        self._node = node
        self._node_state = node_state
        node.add_on_set_parameters_callback(self._on_set)

    def apply(self) -> None:
        """Bring the bundle that answers now in line with the parameters."""
        model = self._node_state.model
        if model is None:
            return
        value = self._values()
        loaded = model.loaded
        loaded.assistant.system_prompt = system_prompt(
            value["system_prompt"], value["preset"], loaded.presets
        )
        loaded.sessions.max_sessions = value["sessions_max"]
        loaded.sessions.idle_seconds = value["session_idle"]
        loaded.sessions.token_budget = value["session_tokens"]
        loaded.sessions.byte_budget = value["sessions_mb"] << 20

    def _on_set(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        changed = {change.name: change.value for change in changes if change.name in _LIVE}
        model = self._node_state.model
        if not changed or model is None:  # without a model they are read when there is one
            return SetParametersResult(successful=True)
        value = {**self._values(), **changed}
        try:
            system_prompt(value["system_prompt"], value["preset"], model.loaded.presets)
        except OptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        executor = self._node.executor
        if executor is not None:  # the values are set after this, if nobody else refuses them
            executor.create_task(self.apply)
        return SetParametersResult(successful=True)

    def _values(self) -> dict[str, Any]:
        return {name: self._node.get_parameter(name).value for name in _LIVE}
