# SPDX-License-Identifier: Apache-2.0
"""The settings of the bundle that answers, from the node's parameters: at the start, and when they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.files.small_file import expanded
from mobilevlm_ros.nodes.model_manager import LiveSettings, Settings
from mobilevlm_ros.nodes.node_state import NodeState
from mobilevlm_ros.nodes.parameters.table import SPECS

T = TypeVar("T", Settings, LiveSettings)

_LIVE = frozenset(field.name for field in fields(LiveSettings))


def read_settings(node: Node) -> Settings:
    """As the node's parameters say now."""
    paths = {name: expanded(node.get_parameter(name).value) for name in ("bundle", "presets_file")}
    return _read(Settings, lambda name: node.get_parameter(name).value, **paths, live=_live(node))


def default_settings(**values: Any) -> Settings:
    """As the parameters' defaults say, but for `values`, which are no live ones."""
    default = {spec.name: spec.default for spec in SPECS}
    return _read(Settings, default.__getitem__, **values, live=_read(LiveSettings, default.__getitem__))


def _live(node: Node, **changed: Any) -> LiveSettings:
    return _read(LiveSettings, lambda name: node.get_parameter(name).value, **changed)


def _read(kind: type[T], read: Callable[[str], Any], **values: Any) -> T:
    """A value of this class whose fields are parameters, read by their names but for those given."""
    names = [field.name for field in fields(kind) if field.name not in values]
    return kind(**{name: read(name) for name in names}, **values)


class LiveParameters:
    """Lets changes of live parameters take effect: the bundle that answers is replaced by one with the new
    settings. Everything runs on the executor's thread.
    """

    def __init__(self, node: Node, node_state: NodeState) -> None:
        self._node = node
        self._node_state = node_state
        node.add_on_set_parameters_callback(self._on_set)

    def apply(self) -> None:
        """Bring the bundle that answers now in line with the parameters."""
        model = self._node_state.model
        if model is None:
            return
        live = _live(self._node)
        if live != model.loaded.settings.live:
            model.loaded = model.loaded.with_live(live)

    def _on_set(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        changed = {change.name: change.value for change in changes if change.name in _LIVE}
        model = self._node_state.model
        if not changed or model is None:  # without a model they are read when there is one
            return SetParametersResult(successful=True)
        try:
            model.loaded.with_live(_live(self._node, **changed))
        except OptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        executor = self._node.executor
        if executor is not None:  # the values are set after this, if nobody else refuses them
            executor.create_task(self.apply)
        return SetParametersResult(successful=True)
