# SPDX-License-Identifier: Apache-2.0
"""The parameter `monitors_file`: read once for each change, checked against the cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.inference.monitoring.monitors import Monitor, load_monitors, resolve
from mobilevlm_ros.nodes.parameters.allowed_paths import AllowedPaths

NAME = "monitors_file"


class MonitorsFile:
    """Reads the file when the parameter is set (to the same path too) and refuses one that cannot be used.
    Everything runs on the executor's thread.

    Args:
        is_unconfigured: whether the parameter `cameras` may still change, so that monitors may name others.
        allowed: the paths that may be set over the graph.
    """

    def __init__(self, node: Node, is_unconfigured: Callable[[], bool], allowed: AllowedPaths) -> None:
        self._node = node
        self._allowed = allowed
        self._is_unconfigured = is_unconfigured
        self._changed: tuple[str, list[Monitor]] | None = None
        node.add_on_set_parameters_callback(self._on_set)

    def read(self) -> list[Monitor]:
        """The monitors of the file as it is now, one camera each; none where no file is named.

        Raises:
            ConfigurationError: the file cannot be used, or names a camera that is not configured.
        """
        self._changed = None
        return self._resolved(_load(self._node.get_parameter(NAME).value))

    def take_change(self) -> list[Monitor] | None:
        """What the last change of the parameter has read, once, as `read`; None: no change since."""
        changed, self._changed = self._changed, None
        if changed is None or changed[0] != self._node.get_parameter(NAME).value:
            return None  # somebody else refused the change
        return self._resolved(changed[1])

    def _on_set(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        for change in changes:
            if change.name == NAME:
                if refusal := self._allowed.refusal(NAME, change.value):
                    return SetParametersResult(successful=False, reason=refusal)
                try:
                    monitors = _load(change.value)
                    if not self._is_unconfigured():
                        self._resolved(monitors)
                    self._changed = (change.value, monitors)
                except ConfigurationError as error:
                    return SetParametersResult(successful=False, reason=f"{NAME}: {error}")
        return SetParametersResult(successful=True)

    def _resolved(self, monitors: Sequence[Monitor]) -> list[Monitor]:
        return resolve(monitors, self._node.get_parameter("cameras").value)


def _load(path: str) -> list[Monitor]:
    return load_monitors(path) if path else []
