# SPDX-License-Identifier: Apache-2.0
"""Asking the node from a shell: `mobilevlm_client "Is the door open?"`, `mobilevlm ask "..." --ros`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.exceptions import InvalidNamespaceException
from rclpy.utilities import remove_ros_args
from rclpy.validate_namespace import validate_namespace
from sensor_msgs.msg import CompressedImage

from mobilevlm_ros.arguments import Parser, tolerate_any_terminal, with_negative_numbers
from mobilevlm_ros.client.async_client import AsyncAskImageClient
from mobilevlm_ros.client.client import AskImageClient
from mobilevlm_ros.client.exchange import TIMEOUT
from mobilevlm_ros.client.formatting import as_dict, as_text
from mobilevlm_ros.client.options import (
    DISCOVERY,
    add_answer_options,
    add_node_options,
    add_output_options,
    request_fields,
)
from mobilevlm_ros.client.printing import Typewriter
from mobilevlm_ros.errors import MobileVLMError, OptionError
from mobilevlm_ros.ros.images.messages import octets

SOON = 1.0
"""Seconds after which somebody who waits for a node is told so."""


def ask_node(
    question: str,
    options: argparse.Namespace,
    pictures: Iterable[tuple[str, bytes | NDArray[np.uint8]]] | None = None,
    frames: int = 0,
    args: Sequence[str] = (),
) -> int:
    """Put a question, print what comes back; 0 only when every status is OK.

    Args:
        options: as `add_answer_options`, `add_node_options` and `add_output_options` add them.
        pictures: (name, bytes of a file or RGB u8[H, W, 3]) to send instead of asking about a camera's
            picture; one answer for each.
        frames: how many frames of the camera the question is about; 0: one.
        args: ROS arguments.

    Raises:
        RequestTimeout: nothing serves the questions, or no response came.
        OptionError: an option has a value that cannot be.
    """
    fields: dict[str, Any] = {
        **request_fields(options, frames),
        "choices": options.choices,
        "timeout": TIMEOUT if options.timeout is None else options.timeout,
    }
    prefix = _prefix(options.namespace or "")
    sent = [] if pictures is None else [(name, _message(name, content)) for name, content in pictures]
    if len(sent) < 2 and _streams(options):
        fields["image"] = sent[0][1] if sent else None
        response = asyncio.run(_stream(f"{prefix}ask", args, question, fields, _patience(options)))
        if not (options.quiet and response.status.ok):
            print(as_text(response, answer=False))
        return 0 if response.status.ok else 1
    failed = False
    with AskImageClient(f"{prefix}ask_image", args) as client:
        patience = _patience(options)
        if not client.wait_for_node(min(SOON, patience)):
            _tell_waiting(patience)
            if patience <= SOON or not client.wait_for_node(patience - SOON):
                raise client.missing(patience)
        for name, image in sent or [("", None)]:
            response = client.ask(question, **fields, image=image)
            print(_printed(response, options, name if len(sent) > 1 else ""), flush=True)
            failed = failed or not response.status.ok
    return 1 if failed else 0


def _streams(options: argparse.Namespace) -> bool:
    """Whether the answer is shown while it grows: a free one, whose end cannot withhold it."""
    if options.stream is not None:
        return bool(options.stream) and not options.json
    withheld = options.abstain_threshold > 0
    return not (options.json or options.choices or withheld or options.camera == "*")


def _tell_waiting(patience: float) -> None:
    """To stderr, so that nobody wonders; where the error follows at once, it says all."""
    if patience > SOON:
        print(f"no node yet; waiting up to {patience:g} s (--wait-for-node) ...", file=sys.stderr, flush=True)


def _patience(options: argparse.Namespace) -> float:
    return DISCOVERY if options.wait_for_node is None else max(0.0, float(options.wait_for_node))


def _printed(response: Any, options: argparse.Namespace, name: str) -> str:
    """One response, of several pictures in one line each."""
    if options.json:
        named = {"image": name} if name else {}
        return json.dumps({**named, **as_dict(response)}, indent=None if name else 1, ensure_ascii=False)
    text = as_text(response)
    if not (name or options.quiet):
        return text
    answer = text.partition("\n")[0]
    return f"{name}: {answer}  ({response.confidence:.3f})" if name else answer


def _prefix(namespace: str) -> str:
    """What goes before a name in a namespace; raises OptionError for one that ROS does not allow."""
    path = namespace.strip("/")
    if not path:
        return ""
    try:
        validate_namespace(f"/{path}")
    except InvalidNamespaceException as error:
        raise OptionError(
            f"{namespace!r} cannot be a namespace: use letters, digits and _ between slashes, no digit "
            "first, as in left or robot1/front"
        ) from error
    return f"/{path}/"


async def _stream(
    action: str, args: Sequence[str], question: str, fields: dict[str, Any], patience: float
) -> Any:
    """Print the answer to stdout as it grows; the result."""
    async with AsyncAskImageClient(action, args) as client:
        if not await client.wait_for_node(min(SOON, patience)):
            _tell_waiting(patience)
            if patience <= SOON or not await client.wait_for_node(patience - SOON):
                raise client.missing(patience)
        stream = client.stream(question, **fields)
        typewriter, camera = Typewriter(), ""
        try:
            async for delta in stream:
                if fields["camera"] == "*" and stream.camera != camera:
                    typewriter.end()
                    camera = stream.camera
                    typewriter(f"{camera}: ")
                typewriter(delta)
        finally:
            typewriter.end()
        return stream.result


def _message(name: str, content: bytes | NDArray[np.uint8]) -> CompressedImage | NDArray[np.uint8]:
    if not isinstance(content, bytes):
        return content
    return CompressedImage(format=Path(name).suffix.lstrip(".").lower(), data=octets(content))


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="mobilevlm_client",
        description="Ask a running mobilevlm_node a question.",
        usage="mobilevlm_client QUESTION [--choices yes no] [options]",
        hint="`mobilevlm_client --help` lists the options",
    )
    parser.add_argument("words", nargs="*", metavar="QUESTION", help="in plain language")
    add_answer_options(parser)
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="ask about the last N frames of the camera at once"
    )
    add_output_options(parser)
    add_node_options(parser)
    options = parser.parse_intermixed_args(with_negative_numbers(args))
    if not options.words and len(options.choices) > 2:  # --choices takes all words that follow it
        options.words = [options.choices.pop()]
    if len(options.words) != 1:
        parser.error("give one question" if options.words else "the question is missing")
    options.question = options.words[0]
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the executable `mobilevlm_client`; 0 only when the status is OK."""
    tolerate_any_terminal()
    argv = list(sys.argv if args is None else ["mobilevlm_client", *args])
    options = _parse(remove_ros_args(argv)[1:])
    try:
        return ask_node(options.question, options, frames=options.frames, args=argv)
    except MobileVLMError as error:
        print(f"mobilevlm_client: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
