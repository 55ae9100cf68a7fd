# SPDX-License-Identifier: Apache-2.0
"""Asking the node from a shell: `mobilevlm_client "Is the door open?"`, `mobilevlm ask --ros "..."`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.exceptions import InvalidNamespaceException
from rclpy.utilities import remove_ros_args
from rclpy.validate_namespace import validate_namespace
from sensor_msgs.msg import CompressedImage

from mobilevlm_ros.client.async_client import AsyncAskImageClient
from mobilevlm_ros.client.client import AskImageClient
from mobilevlm_ros.client.exchange import TIMEOUT
from mobilevlm_ros.client.formatting import as_dict, as_text
from mobilevlm_ros.client.options import add_node_options, request_fields
from mobilevlm_ros.errors import ImageError, MobileVLMError, OptionError
from mobilevlm_ros.ros.image_messages import octets


def ask_node(
    question: str, options: argparse.Namespace, image: Path | None = None, args: Sequence[str] = ()
) -> int:
    """Put a question, print what comes back; 0 only when the status is OK.

    Args:
        options: as `add_node_options` adds them, and choices, max_tokens, temperature, json.
        image: picture file to send instead of asking about a camera's picture.
        args: ROS arguments.

    Raises:
        RequestTimeout: nothing serves the questions, or no response came.
        ImageError: the picture file cannot be read.
        OptionError: an option has a value that cannot be.
    """
    fields: dict[str, Any] = {
        **request_fields(options),
        "choices": options.choices,
        "image": None if image is None else _picture(image),
        "timeout": TIMEOUT if options.timeout is None else options.timeout,
    }
    prefix = _prefix(options.namespace or "")
    if options.stream:
        response = asyncio.run(_stream(f"{prefix}ask", args, question, fields))
    else:
        with AskImageClient(f"{prefix}ask_image", args) as client:
            response = client.ask(question, **fields)
    if options.json:
        print(json.dumps(as_dict(response), indent=1, ensure_ascii=False))
    else:
        print(as_text(response, answer=not options.stream))
    return 0 if response.status.ok else 1


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


async def _stream(action: str, args: Sequence[str], question: str, fields: dict[str, Any]) -> Any:
    """Print the answer to stdout as it grows; the result."""
    async with AsyncAskImageClient(action, args) as client:
        stream = client.stream(question, **fields)
        camera = ""
        async for delta in stream:
            if fields["camera"] == "*" and stream.camera != camera:
                print(f"{chr(10) if camera else ''}{stream.camera}: ", end="")
                camera = stream.camera
            print(delta, end="", flush=True)
        if stream.text:
            print()
        return stream.result


def _picture(path: Path) -> CompressedImage:
    try:
        return CompressedImage(format=path.suffix.lstrip(".").lower(), data=octets(path.read_bytes()))
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mobilevlm_client", description="Ask a running mobilevlm_node a question."
    )
    parser.add_argument("question", help="in plain language")
    parser.add_argument("--choices", nargs="+", default=[], metavar="CHOICE", help="possible answers")
    parser.add_argument("--max-tokens", type=int, help="length limit (default: the node's)")
    parser.add_argument(
        "--temperature", type=float, help="0: the likeliest words (default); more: more random"
    )
    add_node_options(parser)
    parser.add_argument("--json", action="store_true", help="print the response as JSON")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the executable `mobilevlm_client`; 0 only when the status is OK."""
    argv = list(sys.argv if args is None else ["mobilevlm_client", *args])
    options = _parse(remove_ros_args(argv)[1:])
    try:
        return ask_node(options.question, options, args=argv)
    except MobileVLMError as error:
        print(f"mobilevlm_client: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
