# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm serve`: HTTP with an OpenAI-compatible API, and a web page."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import MobileVLMError, OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.server.services.service import VisionService

TOKEN = "MOBILEVLM_TOKEN"
"""Environment variable that holds the token: a command line is visible to everybody on the machine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_service_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="(default: 8080; 0: any free one)")
    parser.add_argument(
        "--token", help=f"that clients must send; needed beyond this machine (default: ${TOKEN})"
    )
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument(
        "--max-body", type=float, default=20.0, metavar="MB", help="of a request (default: 20)"
    )
    bounds.add_argument(
        "--max-questions", type=int, default=256, metavar="N", help="on their way at once (default: 256)"
    )
    bounds.add_argument(
        "--rate",
        type=float,
        metavar="N",
        help="requests per second of each client; 0: any (default: 20 beyond this machine, else any)",
    )
    bounds.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="for an answer, seconds (default: 120)"
    )


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say what answers: a bundle in this process, or a running node."""
    options.add_bundle(parser)
    options.add_runtime(parser)
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a camera without ROS: simulation[:SEED], a picture file, a video device or file; repeatable",
    )
    parser.add_argument("--ros", action="store_true", help="ask a running node (ROS 2) instead of a bundle")
    parser.add_argument("--namespace", default="", help="with --ros: of the node (default: the root)")
    parser.add_argument("--node", default="mobilevlm", help="with --ros: its name (default: mobilevlm)")


def main(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C."""
    try:
        from mobilevlm_ros.server import run
        from mobilevlm_ros.server.http.limits import Limits
    except ImportError as error:
        raise missing(error, "server") from error
    token = token_of(args)
    local = run.check_address(args.host, token)
    limits = Limits(
        body=int(_positive(args.max_body, "--max-body") * 1_000_000),
        questions=int(_positive(args.max_questions, "--max-questions")),
        rate=(0.0 if local else 20.0) if args.rate is None else args.rate,
        timeout=_positive(args.timeout, "--timeout"),
    )
    if not 0 <= args.port <= 65535:
        raise OptionError(f"--port is {args.port}: give a number from 0 to 65535")
    bound = run.listen(args.host, args.port)
    service = make_service(args, limits.questions)
    address = run.address_of(bound)
    told = f"serving {address}  (API: {address}/v1; Ctrl-C ends it)"
    server = run.make_server(service, limits, token, local)
    run.AnnouncedServer(server, service, lambda: print(told, file=sys.stderr, flush=True)).run([bound])
    return 0


def make_service(args: argparse.Namespace, queue_size: int = 256) -> VisionService:
    """What the arguments name. Raises MobileVLMError where it cannot be had."""
    if args.ros:
        if args.bundle is not None or args.camera:
            raise OptionError("--bundle and --camera do not go with --ros: the node has its own")
        try:
            from mobilevlm_ros.server.services.node_service import NodeService
        except ImportError as error:
            raise MobileVLMError(
                f"--ros needs ROS 2 and mobilevlm_msgs ({error}): source the setup.bash of your ROS and of "
                "the workspace that holds this package"
            ) from error
        return NodeService(args.namespace, args.node)
    if args.namespace:
        raise OptionError("--namespace is of a running node: add --ros")
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.server.services.local_cameras import open_cameras
    from mobilevlm_ros.server.services.local_service import LocalService

    runtime = load_runtime(args.bundle, args.backend, args.threads)
    return LocalService(runtime, queue_size=queue_size, cameras=open_cameras(args.camera))


def token_of(args: argparse.Namespace) -> str:
    """The token of the arguments or the environment; empty without one. Raises OptionError."""
    if args.token is None:
        return os.environ.get(TOKEN, "")
    if not args.token:
        raise OptionError("--token is empty: give a long random text, or leave it out")
    return str(args.token)


def missing(error: ImportError, extra: str) -> MobileVLMError:
    """The error that says how to get an extra's packages."""
    return MobileVLMError(f"this needs {error.name or error}: pip install 'mobilevlm_ros[{extra}]'")


def _positive(value: float, option: str) -> float:
    if not value > 0:
        raise OptionError(f"{option} is {value:g}: give a number above 0")
    return value
