# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm ask IMAGE QUESTION`, and `mobilevlm ask --ros QUESTION`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.client.options import NODE_OPTIONS, add_node_options
from mobilevlm_ros.errors import MobileVLMError, OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.inference.types import Answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    image = parser.add_argument("image", type=Path, metavar="IMAGE", help="picture file (JPEG, PNG, ...)")
    question = parser.add_argument("question", metavar="QUESTION")
    parser.add_argument(
        "--bundle", type=Path, help="bundle directory (default: the small model that comes with the package)"
    )
    parser.add_argument(
        "--choices",
        nargs="+",
        default=[],
        metavar="CHOICE",
        help="answer with one of these, and give a probability for each",
    )
    form = parser.add_argument_group("what the answer looks like")
    form.add_argument(
        "--answer-format", default="", metavar="FORMAT", help="integer, number, json, or choice_list"
    )
    form.add_argument("--minimum", type=float, default=0.0, help="of an integer or number")
    form.add_argument("--maximum", type=float, default=0.0, help="of an integer or number")
    form.add_argument("--json-schema", default="", metavar="JSON", help="schema of a json answer")
    form.add_argument(
        "--abstain-threshold", type=float, default=0.0, metavar="P", help="withhold a less sure answer"
    )
    parser.add_argument("--max-tokens", type=int, help="longest answer (default: 64, or the node's)")
    words = parser.add_argument_group("how its words are chosen")
    words.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 takes the likeliest word, more is more random (default: 0)",
    )
    words.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="with a temperature: only the likeliest words that together have this probability",
    )
    words.add_argument(
        "--seed", type=int, default=0, help="with a temperature: the same seed gives the same answer"
    )
    words.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="F", help="above 1: fewer repetitions"
    )
    words.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="the answer ends before this; repeatable"
    )
    parser.add_argument("--backend", default="auto", help="what runs the model (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: one per physical core)")
    parser.add_argument("--json", action="store_true", help="print answer, confidence and latency as JSON")
    node = parser.add_argument_group("asking a running node (ROS 2)")
    node.add_argument(
        "--ros",
        metavar="QUESTION",
        action=_WithoutPositionals,
        optional=(image, question),
        help="ask the node about its camera's picture; with IMAGE: about that",
    )
    add_node_options(node)


def main(args: argparse.Namespace) -> int:
    """Asks; the answer goes to stdout as it grows, confidence and latency to stderr."""
    if args.ros is not None:
        return _ask_node(args)
    given = [name for name in NODE_OPTIONS if getattr(args, name) is not None]
    if given:
        raise OptionError(f"--{given[0].replace('_', '-')} is for a running node: ask it with --ros QUESTION")
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.inference.types import AnswerFormat, Frame, Request, SamplingParams
    from mobilevlm_ros.processing.image_file import read_picture

    frame = Frame(read_picture(args.image))
    runtime = load_runtime(args.bundle, args.backend, args.threads)
    request = Request(
        args.question,
        choices=tuple(args.choices),
        abstain_threshold=args.abstain_threshold,
        sampling=SamplingParams(
            max_tokens=64 if args.max_tokens is None else args.max_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
            repetition_penalty=args.repetition_penalty,
            stop=tuple(args.stop),
        ),
        answer_format=AnswerFormat(
            args.answer_format, minimum=args.minimum, maximum=args.maximum, json_schema=args.json_schema
        ),
    )
    if args.json:
        answer = Assistant(runtime).ask(frame, request)
        model = {"model": runtime.bundle.manifest.name, "backend": runtime.backend_name}
        print(json.dumps({**_as_dict(answer, args.choices), **model}, ensure_ascii=False))
        return 0
    typewriter = _Typewriter()
    may_abstain = args.abstain_threshold > 0  # then nothing is known before the end
    try:
        answer = Assistant(runtime).ask(frame, request, on_text=None if may_abstain else typewriter)
    except BaseException:
        typewriter.end()
        raise
    if may_abstain and not args.choices:
        print(answer.text, end="")
    _report(answer, args.choices)
    return 0


class _WithoutPositionals(argparse.Action):
    """Stores its value, and makes do without the positional arguments that are required otherwise."""

    def __init__(self, *args: Any, optional: Sequence[argparse.Action], **options: Any) -> None:
        super().__init__(*args, **options)
        self._optional = optional

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any
    ) -> None:
        setattr(namespace, self.dest, values)
        for positional in self._optional:
            positional.required = False


def _ask_node(args: argparse.Namespace) -> int:
    if args.question is not None:
        raise OptionError(f"two questions were given: {args.ros!r} and {args.question!r}")
    if args.bundle is not None:
        raise OptionError("--bundle does not go with --ros: the node has its own, see its parameter `bundle`")
    try:
        from mobilevlm_ros.client.cli import ask_node
    except ImportError as error:
        raise MobileVLMError(
            f"--ros needs ROS 2 and mobilevlm_msgs ({error}): source the setup.bash of your ROS and of the "
            "workspace that holds this package"
        ) from error
    return ask_node(args.ros, args, args.image)


class _Typewriter:
    """Prints pieces of text as they come, without the space they begin with."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, delta: str) -> None:
        delta = delta if self._begun else delta.lstrip()
        self._begun = self._begun or bool(delta)
        print(delta, end="", flush=True)

    def end(self) -> None:
        """Ends the line that was begun, so that an error gets its own."""
        if self._begun:
            print(flush=True)


def _as_dict(answer: Answer, choices: list[str]) -> dict[str, Any]:
    """For JSON; what the node's answers have too is named and shaped as in `mobilevlm ask --ros --json`."""
    told = dataclasses.asdict(answer)
    latency = {**told.pop("latency"), "total": answer.latency.total}
    odds = dict(zip(choices, told.pop("choice_probabilities")))
    del told["choices"], told["logprobs"]
    return {
        "answer": told.pop("text"),
        "choice_probabilities": odds,
        "cached_tokens": told.pop("reused_tokens"),
        **told,
        "latency": latency,
    }


def _report(answer: Answer, choices: list[str]) -> None:
    if choices:
        for choice, probability in zip(choices, answer.choice_probabilities, strict=True):
            print(f"{probability:6.1%}  {choice}")
    if choices and answer.text not in choices and not answer.abstained:
        print(answer.text)  # of several choices that apply, or of none
    elif not choices and not answer.abstained:
        print()
    if answer.abstained:
        print(f"abstained; the best guess is {answer.best_guess!r}", file=sys.stderr)
    times = answer.latency
    print(
        f"confidence {answer.confidence:.2f}, {times.total * 1e3:.0f} ms (encode {times.encode * 1e3:.0f}, "
        f"prefill {times.prefill * 1e3:.0f}, decode {times.decode * 1e3:.0f})",
        file=sys.stderr,
    )
