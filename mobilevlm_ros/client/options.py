# SPDX-License-Identifier: Apache-2.0
"""Command line options of a question to the node. Needs no ROS."""

from __future__ import annotations

import argparse
from typing import Any

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.validate import MAX_TOKENS

DISCOVERY = 5.0
"""Seconds in which a node that runs is found; on one machine it takes less than one."""


def add_node_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Options that only a question to a running node has; each is None where it is not given."""
    add = parser.add_argument
    add("--camera", help="name of a configured camera, '*' for all (default: the node's first)")
    add("--session", help="name of a conversation that this question begins or continues")
    add("--new-frame", action="store_true", default=None, help="in a session: ask about the newest picture")
    add("--preset", help="name of one of the node's system prompts")
    add("--system-prompt", help="text before the conversation")
    add("--max-age", type=float, help="oldest frame, seconds; -1: any (default: the node's)")
    add("--wait-for-frame", type=float, help="for a fresh frame, seconds (default: 5)")
    add("--timeout", type=float, help="seconds; 0: the node's own limit, -1: none (default: 30)")
    add("--namespace", help="namespace of the node (default: the root)")
    add(
        "--wait-for-node",
        type=float,
        metavar="SECONDS",
        help=f"until a node serves questions (default: {DISCOVERY:g})",
    )


def add_output_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """How the answer is printed, with and without a node."""
    add = parser.add_argument
    add("--json", action="store_true", help="print answer, confidence and latency as JSON")
    add("-q", "--quiet", action="store_true", help="print the answer alone")
    add(
        "--stream",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="print a free answer while it grows (default), or all at once",
    )


ANSWER_OPTIONS = (
    "answer_format",
    "minimum",
    "maximum",
    "json_schema",
    "abstain_threshold",
    "top_p",
    "seed",
    "repetition_penalty",
    "stop",
)
"""Options of `mobilevlm ask` for the answer and its words, named as the fields of AskImage."""

NODE_OPTIONS = (
    "camera",
    "session",
    "new_frame",
    "preset",
    "system_prompt",
    "max_age",
    "wait_for_frame",
    "timeout",
    "namespace",
    "wait_for_node",
)
"""Names of these options in the parsed arguments."""


def request_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of AskImage as the options say, beside question, choices, image and timeout.

    Raises OptionError for a --max-tokens that the field, where 0 stands for the node's own limit, cannot say.
    """
    tokens = options.max_tokens
    if tokens is not None and not 1 <= tokens <= MAX_TOKENS:
        raise OptionError(f"max_tokens is {tokens}: give a number from 1 to {MAX_TOKENS}")
    return {
        "camera": options.camera or "",
        "session": options.session or "",
        "new_frame": bool(options.new_frame),
        "preset": options.preset or "",
        "system_prompt": options.system_prompt or "",
        "max_age": options.max_age or 0.0,
        "wait_for_frame": 5.0 if options.wait_for_frame is None else options.wait_for_frame,
        "max_tokens": tokens or 0,
        "temperature": options.temperature or 0.0,
        **{name: getattr(options, name) for name in ANSWER_OPTIONS if hasattr(options, name)},
    }
