# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: declared from the table, and guarded against changes that cannot take effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.nodes.parameters.table import SPECS, Spec

_BY_NAME = {spec.name: spec for spec in SPECS}


class Parameters:
    """Declares all parameters on a node, and refuses changes that are out of bounds or come too late.

    Args:
        is_unconfigured: whether parameters that are not live may change now.
    """

    def __init__(self, node: Node, is_unconfigured: Callable[[], bool]) -> None:
        self._node = node
        self._is_unconfigured = is_unconfigured
        self._storing = False
        for spec in SPECS:
            node.declare_parameter(spec.name, spec.default, descriptor(spec))
        # After the declarations: `problems` tells what is wrong with the values they come with.
        node.add_on_set_parameters_callback(self._on_set)

    def problems(self) -> list[str]:
        """What is wrong with the values the node was started with."""
        found = (problem(spec.name, self._node.get_parameter(spec.name).value) for spec in SPECS)
        return [text for text in found if text]

    def store(self, **values: Any) -> None:
        """Write what the node itself has changed, so that `ros2 param get` and `dump` tell the truth."""
        self._storing = True
        try:
            self._node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        finally:
            self._storing = False

    def _on_set(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        for change in changes:
            reason = self._refusal(change.name, change.value)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _refusal(self, name: str, value: Any) -> str:
        spec = _BY_NAME.get(name)
        if spec is None:  # use_sim_time and the like
            return ""
        # `ros2 param load` sets every parameter of a file, those that stay as they are too.
        same = value == self._node.get_parameter(name).value
        if not (spec.live or same or self._storing or self._is_unconfigured()):
            hint = ", or call the service ~/reload_bundle" if name in ("bundle", "backend") else ""
            return f"{name} takes effect when the node is configured: deactivate and clean it up first{hint}"
        return problem(name, value)


def problem(name: str, value: Any) -> str:
    """Why a value cannot be used; empty when it can."""
    spec = _BY_NAME[name]
    if spec.choices and value not in spec.choices:
        return f"{name} is {value!r}: choose one of {', '.join(spec.choices)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}: give a finite number"
    return spec.check(value) if spec.check is not None else ""


def descriptor(spec: Spec) -> ParameterDescriptor:
    """What `ros2 param describe` prints about a parameter."""
    made = ParameterDescriptor(description=spec.description)
    notes = ["one of: " + ", ".join(spec.choices)] if spec.choices else []
    if not spec.live:
        notes.append("takes effect when the node is configured")
    made.additional_constraints = "; ".join(notes)
    if spec.bounds is not None:
        low, high = spec.bounds
        if isinstance(spec.default, int):
            made.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            made.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return made
