# SPDX-License-Identifier: Apache-2.0
"""What conversations start from: system prompt, presets and the limits of sessions, as the parameters say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.presets import Preset

if TYPE_CHECKING:
    from mobilevlm_ros.nodes.reception import Situation

_LIVE = ("system_prompt", "preset", "sessions_max", "session_idle", "session_tokens", "sessions_mb")


def system_prompt(text: str, preset: str, presets: Mapping[str, Preset]) -> str:
    """The text that is put before the conversation; empty where neither a text nor a preset is given.

    Raises:
        OptionError: both are given, or there is no such preset.
    """
    if not preset:
        return text
    if text:
        raise OptionError("both system_prompt and preset are given: leave one of them empty")
    if preset not in presets:
        known = ", ".join(map(repr, presets)) or "none"
        raise OptionError(
            f"there is no preset {preset!r}: use one of {known}, or add it to the node's presets_file"
        )
    return presets[preset].system_prompt


class Conversations:
    """Lets changes of the live parameters take effect. Everything runs on the executor's thread."""

    def __init__(self, node: Node, situation: Situation) -> None:
        self._node = node
        self._situation = situation
        node.add_on_set_parameters_callback(self._on_set)

    def apply(self) -> None:
        """Bring the bundle that answers now in line with the parameters."""
        model = self._situation.model
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
        model = self._situation.model
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
