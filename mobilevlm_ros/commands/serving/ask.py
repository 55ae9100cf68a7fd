# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm ask [IMAGE] QUESTION`, here or of a running node (`--ros`)."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from mobilevlm_ros.client.options import (
    NODE_OPTIONS,
    add_answer_options,
    add_node_options,
    add_output_options,
    implied_format,
)
from mobilevlm_ros.client.printing import Typewriter, answer_lines, logprob_lines, logprobs_of
from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.serving.picture_source import (
    Found,
    frame_count,
    pictures,
    split_frames,
    split_words,
)
from mobilevlm_ros.errors import MobileVLMError, OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.inference.cache.sessions import Session
    from mobilevlm_ros.inference.types import Answer, Frame, Frames, Request

ANY_ORDER = True
"""Words and options may be mixed."""

USAGE = "mobilevlm ask [IMAGE] QUESTION [--ros] [--choices yes no] [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.usage = USAGE
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[IMAGE] QUESTION",
        help="IMAGE: a picture (JPEG, PNG, WebP), a directory of them, a video, - for standard input, or a "
        "URL with --allow-url. With --ros it may be left out: then the node asks its camera",
    )
    options.add_bundle(parser)
    parser.add_argument(
        "--frames",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="ask about several pictures at once, oldest first. With --ros: a number, how many frames of the "
        "camera",
    )
    parser.add_argument("--allow-url", action="store_true", help="fetch IMAGE from the web")
    parser.add_argument(
        "--at", type=float, metavar="SECONDS", help="moment of a video (default: its first frame)"
    )
    add_answer_options(parser)
    options.add_runtime(parser)
    add_output_options(parser)
    node = parser.add_argument_group("asking a running node (ROS 2)")
    node.add_argument(
        "--ros", action="store_true", help="ask the node; without IMAGE about what its camera sees"
    )
    add_node_options(node)
    parser.set_defaults(parser=parser)


def main(args: argparse.Namespace) -> int:
    """Asks; prints the answer (as it grows), its confidence, and the probability of each choice."""
    words, count = frame_count(args.words, args.frames) if args.ros else (args.words, 0)
    words, frames = (words, []) if args.ros else split_frames(words, args.frames, args.choices)
    source, question, args.choices = split_words(words, args.choices, bool(frames))
    if question is None:
        _usage_error(args, "the question is missing")
    found = None if source is None else pictures(source, allow_url=args.allow_url, at=args.at)
    if args.ros:
        return _ask_node(question, args, found, count)
    given = [name for name in NODE_OPTIONS if getattr(args, name) is not None]
    if given:
        raise OptionError(f"--{given[0].replace('_', '-')} is for a running node: add --ros")
    if frames:
        shown = [found for name in frames for found in pictures(name, allow_url=args.allow_url, at=args.at)]
        return _ask_here(question, args, shown, together=True)
    if found is None:
        _usage_error(args, "IMAGE is missing: name a picture, or add --ros to ask the running node")
    return _ask_here(question, args, list(found))


def _usage_error(args: argparse.Namespace, message: str) -> NoReturn:
    args.parser.error(message)
    raise AssertionError  # it has ended the program


def _ask_here(question: str, args: argparse.Namespace, found: list[Found], together: bool = False) -> int:
    """`together`: one question about all the pictures, not one about each."""
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.inference.validate import check_frames

    request = _request(question, args)
    if together or len(found) == 1:
        frames = check_frames([_frame(picture) for picture in found])  # before the model is loaded
        runtime = load_runtime(args.bundle, args.backend, args.threads)
        model = f"{runtime.bundle.manifest.name} on {runtime.backend_name}"
        return _ask_once(Assistant(runtime), frames, request, args, model)
    runtime = load_runtime(args.bundle, args.backend, args.threads)
    assistant, failed = Assistant(runtime), False
    for picture in found:
        try:
            answer = assistant.ask(_frame(picture), request, _session(args, assistant))
        except MobileVLMError as error:
            failed = True
            print(f"mobilevlm: error: {error}", file=sys.stderr)
            continue
        if args.json:
            told = {"image": picture.name, **_as_dict(answer, request.choices)}
            print(json.dumps(told, ensure_ascii=False), flush=True)
        else:
            print(f"{picture.name}: {_text(answer, request)}  ({answer.confidence:.3f})", flush=True)
    return 1 if failed else 0


def _ask_once(
    assistant: Assistant, frames: Frames, request: Request, args: argparse.Namespace, model: str
) -> int:
    session = _session(args, assistant)
    if args.json:
        answer = assistant.ask(frames, request, session)
        name, _, backend = model.partition(" on ")
        told = {**_as_dict(answer, request.choices), "model": name, "backend": backend}
        print(json.dumps(told, ensure_ascii=False))
        return 0
    typewriter = Typewriter()
    # With a threshold, nothing is known before the end.
    streams = args.stream is not False and not request.choices and not request.abstain_threshold
    try:
        answer = assistant.ask(frames, request, session, on_text=typewriter if streams else None)
    finally:
        streamed = typewriter.begun
        typewriter.end()  # so that an error gets a line of its own
    times = {**dataclasses.asdict(answer.latency), "total": answer.latency.total}
    odds = dict(zip(request.choices, answer.choice_probabilities))
    first, *rest = answer_lines(_text(answer, request), answer.confidence, odds, times, model)
    if not streamed:
        print(first)
    if not args.quiet:
        print("\n".join([*rest, *logprob_lines(logprobs_of(answer))]))
    return 0


def _request(question: str, args: argparse.Namespace) -> Request:
    from mobilevlm_ros.inference.types import AnswerFormat, Request, SamplingParams

    return Request(
        question,
        choices=tuple(args.choices),
        abstain_threshold=args.abstain_threshold,
        sampling=SamplingParams(
            max_tokens=64 if args.max_tokens is None else args.max_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
            repetition_penalty=args.repetition_penalty,
            stop=tuple(args.stop),
            logprobs=args.logprobs,
            top_logprobs=args.top_logprobs,
        ),
        answer_format=AnswerFormat(
            implied_format(args), args.minimum, args.maximum, args.json_schema, args.pattern, args.grammar
        ),
    )


def _session(args: argparse.Namespace, assistant: Assistant) -> Session | None:
    """The conversation that the question goes on; None for a first question."""
    from mobilevlm_ros.inference.cache.sessions import Session
    from mobilevlm_ros.inference.prompt.conversation import turns_of

    said = turns_of([text for turn in args.history for text in turn])
    return Session.after(said, assistant.runtime.language.max_length) if said else None


def _frame(picture: Found) -> Frame:
    from mobilevlm_ros.inference.types import Frame
    from mobilevlm_ros.processing.image_decoder import decode_image

    content = picture.content
    name = "the picture on standard input" if picture.name == "-" else picture.name
    return Frame(decode_image(content, name) if isinstance(content, bytes) else content)


def _text(answer: Answer, request: Request) -> str:
    """As the node says it."""
    if not answer.abstained:
        return answer.text
    return (
        f"(abstained) the best guess {answer.best_guess!r} has confidence {answer.confidence:.2f}, below "
        f"abstain_threshold {request.abstain_threshold:g}"
    )


def _ask_node(question: str, args: argparse.Namespace, found: Iterator[Found] | None, count: int) -> int:
    if args.bundle is not None:
        raise OptionError("--bundle does not go with --ros: the node has its own, see its parameter `bundle`")
    try:
        from mobilevlm_ros.client.cli import ask_node
    except ImportError as error:
        raise MobileVLMError(
            f"--ros needs ROS 2 and mobilevlm_msgs ({error}): source the setup.bash of your ROS and of the "
            "workspace that holds this package"
        ) from error
    sent = None if found is None else ((picture.name, picture.content) for picture in found)
    return ask_node(question, args, sent, count)


def _as_dict(answer: Answer, choices: tuple[str, ...]) -> dict[str, Any]:
    """For JSON; what the node's answers have too is named and shaped as in `mobilevlm ask --ros --json`."""
    told = dataclasses.asdict(answer)
    latency = {**told.pop("latency"), "total": answer.latency.total}
    odds = dict(zip(choices, told.pop("choice_probabilities")))
    del told["choices"]
    told["logprobs"] = logprobs_of(answer)
    return {
        "answer": told.pop("text"),
        "choice_probabilities": odds,
        "cached_tokens": told.pop("reused_tokens"),
        **told,
        "latency": latency,
    }
