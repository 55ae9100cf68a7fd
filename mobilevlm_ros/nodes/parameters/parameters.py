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
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.nodes.parameters.allowed_paths import FILES, WRITTEN, AllowedPaths
from mobilevlm_ros.nodes.parameters.spec import Spec
from mobilevlm_ros.nodes.parameters.table import SPECS

_BY_NAME = {spec.name: spec for spec in SPECS}

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list of texts",
}


class Parameters:
    """Declares all parameters on a node, and refuses changes that are out of bounds or come too late.

    Args:
        is_unconfigured: whether parameters that are not live may change now.

    Attributes:
        allowed: the paths that may be set over the graph.
    """

    def __init__(self, node: Node, is_unconfigured: Callable[[], bool]) -> None:
        self._node = node
        self._is_unconfigured = is_unconfigured
        self._storing = False
        self._unusable: dict[str, str] = {}  # by name: why the value it was started with could not be taken
        for spec in SPECS:
            self._declare(spec)
        value = {name: node.get_parameter(name).value for name in ("allowed_paths", *FILES, *WRITTEN)}
        files, written = ([value[name] for name in names] for names in (FILES, WRITTEN))
        self.allowed = AllowedPaths(value["allowed_paths"], files, written)
        # After the declarations: `problems` tells what is wrong with the values they come with.
        node.add_on_set_parameters_callback(self._on_set)

    def problems(self) -> list[str]:
        """What is wrong with the values the node was started with."""
        found = (problem(spec.name, self._node.get_parameter(spec.name).value) for spec in SPECS)
        return [*self._unusable.values(), *(text for text in found if text)]

    def _declare(self, spec: Spec) -> None:
        """Declare it with the value that the node was started with. One that cannot be taken is remembered
        as a problem: a node that ended over it would be started again for ever.
        """
        given = self._given().get(spec.name)
        if given is None:
            self._node.declare_parameter(spec.name, spec.default, descriptor(spec))
            return
        value = converted(given.value, spec.default)
        try:
            if not is_like(value, spec.default):
                raise TypeError(f"{type(value).__name__} instead of {type(spec.default).__name__}")
            self._node.declare_parameter(spec.name, value, descriptor(spec), ignore_override=True)
        except (ValueError, TypeError, ParameterException) as error:
            kind = _KINDS[type(spec.default)]
            bounds = "" if spec.bounds is None else f" from {spec.bounds[0]:g} to {spec.bounds[1]:g}"
            shown = "empty" if given.value is None else repr(given.value)
            self._unusable[spec.name] = f"{spec.name} is {shown}: give {kind}{bounds}"
            self._node.get_logger().debug(f"{spec.name}: {error}")
            if not self._node.has_parameter(spec.name):
                self._node.declare_parameter(spec.name, spec.default, descriptor(spec), ignore_override=True)

    def _given(self) -> dict[str, Parameter[Any]]:
        """What files and arguments set; rclpy has no public call for those that nobody declared."""
        given: dict[str, Parameter[Any]] = self._node._parameter_overrides
        return given

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
        for change in changes:
            self._unusable.pop(change.name, None)
        return SetParametersResult(successful=True)

    def _refusal(self, name: str, value: Any) -> str:
        spec = _BY_NAME.get(name)
        if spec is None:  # use_sim_time and the like
            return ""
        # `ros2 param load` sets every parameter of a file, those that stay as they are too.
        same = value == self._node.get_parameter(name).value
        if name == "allowed_paths" and not same:
            return "allowed_paths is given when the node starts, not over the graph"
        if not (spec.live or same or self._storing or self._is_unconfigured()):
            hint = ", or call the service ~/reload_bundle" if name in ("bundle", "backend") else ""
            return f"{name} takes effect when the node is configured: deactivate and clean it up first{hint}"
        outside = "" if same or self._storing else self.allowed.refusal(name, value)
        return outside or problem(name, value)


def converted(value: Any, default: Any) -> Any:
    """A value from a file or an argument as the type of the default, where people write it so: whole numbers
    for any number, True and FALSE as texts, one text for a list, a number for a text. Else the value itself.
    """
    if isinstance(default, bool):
        known = {"true": True, "false": False}
        return known.get(value.strip(" '\"").lower(), value) if isinstance(value, str) else value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, list) and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if isinstance(default, str) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value


def is_like(value: Any, default: Any) -> bool:
    """Whether a value has the type of the default."""
    if isinstance(default, list):
        return isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value)
    return type(value) is type(default)


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
