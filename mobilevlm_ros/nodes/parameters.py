# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: one table with defaults, bounds, and whether each may change while the node runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.inference.assistant import CAPTION_PROMPT
from mobilevlm_ros.inference.validate import MAX_QUESTION, MAX_TOKENS

LONGEST_QUESTION = 100_000
"""Upper bound of max_question_length, characters."""


@dataclass(frozen=True)
class Spec:
    """One parameter. `live`: a change takes effect at once; otherwise only while the node is unconfigured."""

    name: str
    default: Any
    description: str
    live: bool = False
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()


SPECS = (
    Spec("bundle", "", "Directory of the model bundle; empty = the nano model that comes with the package."),
    Spec("backend", "auto", "Engine that runs the bundle: auto takes the best that loads here."),
    Spec("threads", 0, "CPU threads of the engine; 0 = one per physical core.", bounds=(0, 256)),
    Spec(
        "spin_threads",
        False,
        "Idle engine threads busy-wait: faster alone, far slower beside other processes.",
    ),
    Spec("cameras", [""], "Names of the cameras; one listens to <name>/image, the empty name to image."),
    Spec(
        "transport",
        "auto",
        "Which topic to listen to: raw (image), compressed (image/compressed), or auto: raw where it is "
        "published and arrives, else compressed.",
        choices=("auto", "raw", "compressed"),
    ),
    Spec(
        "reliability",
        "best_effort",
        "QoS of the image subscriptions; best_effort also receives from reliable publishers.",
        choices=("best_effort", "reliable"),
    ),
    Spec(
        "history_mb",
        0,
        "Memory for each camera's recent images, MiB, so that a request's `stamp` can name one; 0 = only the "
        "newest, which stays in the middleware until it is needed.",
        bounds=(0, 65536),
    ),
    Spec(
        "history_rate",
        2.0,
        "Images per second and camera that are kept where history_mb is above 0.",
        bounds=(0.1, 60.0),
    ),
    Spec("queue_size", 16, "Requests that may wait; more get the status BUSY.", bounds=(1, 1000)),
    Spec("prefix_cache_mb", 256, "Memory for frames kept for follow-up questions, MiB.", bounds=(0, 65536)),
    Spec(
        "max_age",
        2.0,
        "Oldest frame that a question may be about, seconds; negative = any.",
        True,
        (-1.0, 86400.0),
    ),
    Spec(
        "timeout",
        30.0,
        "Time limit of a request that names none, seconds; negative = none.",
        True,
        (-1.0, 86400.0),
    ),
    Spec(
        "max_tokens", 64, "Length limit of an answer whose request names none, tokens.", True, (1, MAX_TOKENS)
    ),
    Spec("max_question_length", MAX_QUESTION, "Longest question, characters.", True, (1, LONGEST_QUESTION)),
    Spec(
        "caption_rate",
        1.0,
        "Captions per second and camera on ~/captions, made only while someone listens; 0 = none.",
        True,
        (0.0, 20.0),
    ),
    Spec("caption_prompt", CAPTION_PROMPT, "Question that captions answer.", True),
    Spec("caption_max_tokens", 64, "Length limit of a caption, tokens.", True, (1, MAX_TOKENS)),
    Spec("diagnostics_period", 1.0, "Seconds between messages on /diagnostics.", bounds=(0.1, 3600.0)),
    Spec("autostart", True, "Configure and activate the node when it starts."),
)

_BY_NAME = {spec.name: spec for spec in SPECS}


def declare(node: Node, is_unconfigured: Callable[[], bool]) -> None:
    """Declare all parameters on a node and refuse changes that are out of bounds or come too late."""
    for spec in SPECS:
        node.declare_parameter(spec.name, spec.default, _descriptor(spec))
    # After the declarations, so that the values they come with are checked by `problem` at configure instead.
    node.add_on_set_parameters_callback(lambda changes: _on_set(changes, is_unconfigured()))


def problems(node: Node) -> list[str]:
    """What is wrong with the values the node was started with."""
    found = (problem(spec.name, node.get_parameter(spec.name).value) for spec in SPECS)
    return [text for text in found if text]


def problem(name: str, value: Any) -> str:
    """Why a value cannot be used; empty when it can."""
    spec = _BY_NAME[name]
    if spec.choices and value not in spec.choices:
        return f"{name} is {value!r}: choose one of {', '.join(spec.choices)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}: give a finite number"
    if name == "cameras" and (not value or len(set(value)) != len(value) or "*" in value):
        return f"cameras is {list(value)!r}: give at least one name, each once, and not '*' (all of them)"
    if name == "caption_prompt" and not value.strip():
        return "caption_prompt is empty: write a question, or set caption_rate to 0 for no captions"
    return ""


def _on_set(changes: Sequence[Parameter[Any]], unconfigured: bool) -> SetParametersResult:
    for change in changes:
        spec = _BY_NAME.get(change.name)
        if spec is None:
            continue
        if not spec.live and not unconfigured:
            reason = (
                f"{change.name} takes effect when the node is configured: deactivate and clean it up first"
            )
            return SetParametersResult(successful=False, reason=reason)
        reason = problem(change.name, change.value)
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def _descriptor(spec: Spec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.description)
    if spec.choices:
        descriptor.additional_constraints = "one of: " + ", ".join(spec.choices)
    elif not spec.live:
        descriptor.additional_constraints = "takes effect when the node is configured"
    if spec.bounds is not None:
        low, high = spec.bounds
        if isinstance(spec.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor
