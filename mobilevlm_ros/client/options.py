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
    add(
        "--frame-interval",
        type=float,
        metavar="SECONDS",
        help="with --frames: how far they are apart (default: as the node keeps them)",
    )
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


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """What is asked, and how it is answered, with and without a node."""
    add = parser.add_argument
    add(
        "--choices",
        nargs="+",
        default=[],
        metavar="CHOICE",
        help="answer with one of these, and give a probability for each",
    )
    add(
        "--history",
        nargs=2,
        action="append",
        default=[],
        metavar=("QUESTION", "ANSWER"),
        help="what was said before about the same picture; repeatable, oldest first",
    )
    add = parser.add_argument_group("what the answer looks like").add_argument
    add(
        "--answer-format",
        default="",
        metavar="FORMAT",
        help="integer, number, choice_list, json, regex or grammar (default: free text, or what the options "
        "below say)",
    )
    add("--minimum", type=float, default=0.0, help="of an integer or number")
    add("--maximum", type=float, default=0.0, help="of an integer or number")
    add("--json-schema", default="", metavar="JSON", help="schema of a json answer")
    add("--pattern", default="", metavar="REGEX", help="regular expression that the whole answer matches")
    add("--grammar", default="", metavar="LARK", help="grammar of the answer, with a rule `start`")
    add("--abstain-threshold", type=float, default=0.0, metavar="P", help="withhold a less sure answer")
    add("--max-tokens", type=int, help="longest answer (default: 64, or the node's)")
    add("--logprobs", action="store_true", help="tell how probable each token of the answer was")
    add("--top-logprobs", type=int, default=0, metavar="N", help="with --logprobs: and the N most probable")
    add = parser.add_argument_group("how its words are chosen").add_argument
    add(
        "--temperature",
        type=float,
        default=0.0,
        help="0 takes the likeliest word, more is more random (default: 0)",
    )
    add(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="with a temperature: only the likeliest words that together have this probability",
    )
    add("--seed", type=int, default=0, help="with a temperature: the same seed gives the same answer")
    add("--repetition-penalty", type=float, default=1.0, metavar="F", help="above 1: fewer repetitions")
    add("--stop", action="append", default=[], metavar="TEXT", help="the answer ends before this; repeatable")


def implied_format(options: argparse.Namespace) -> str:
    """The answer format that the options name, or that one of them stands for."""
    implied = {"json": options.json_schema, "regex": options.pattern, "grammar": options.grammar}
    return str(options.answer_format) or next((kind for kind, text in implied.items() if text), "")


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
    "minimum",
    "maximum",
    "json_schema",
    "pattern",
    "grammar",
    "abstain_threshold",
    "logprobs",
    "top_logprobs",
    "temperature",
    "top_p",
    "seed",
    "repetition_penalty",
    "stop",
)
"""Options for the answer and its words that are named as the fields of AskImage."""

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
    "frame_interval",
)
"""Names of these options in the parsed arguments."""


def request_fields(options: argparse.Namespace, frames: int = 0) -> dict[str, Any]:
    """Fields of AskImage as the options say, beside question, choices, image and timeout.

    Args:
        options: as `add_node_options` and `add_answer_options` add them.
        frames: that the question is about; 0: one.

    Raises OptionError for a --max-tokens that the field, where 0 stands for the node's own limit, cannot say,
    and for other numbers that the fields cannot hold.
    """
    for name, value in (("frames", frames), ("top_logprobs", options.top_logprobs), ("seed", options.seed)):
        if value < 0:
            raise OptionError(f"{name} is {value}: give 0 or a positive number")
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
        "answer_format": implied_format(options),
        "history": [text for turn in options.history for text in turn],
        "frames": frames,
        "frame_interval": options.frame_interval or 0.0,
        **{name: getattr(options, name) for name in ANSWER_OPTIONS},
    }
