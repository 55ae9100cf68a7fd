# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm mcp`: an agent asks the cameras, over stdio or HTTP."""

from __future__ import annotations

import argparse
import sys

from mobilevlm_ros.commands.serve import TOKEN, add_service_arguments, make_service, missing, token_of
from mobilevlm_ros.errors import OptionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_service_arguments(parser)
    parser.add_argument("--http", action="store_true", help="streamable HTTP at /mcp instead of stdio")
    parser.add_argument("--host", default="127.0.0.1", help="with --http (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8081, help="with --http (default: 8081; 0: any free one)")
    parser.add_argument("--token", help=f"with --http: that clients must send (default: ${TOKEN})")


def main(args: argparse.Namespace) -> int:
    """Serves until the agent leaves, or Ctrl-C."""
    try:
        from mobilevlm_ros.server.mcp_server import make_mcp_server
    except ImportError as error:
        raise missing(error, "mcp") from error
    if args.http:
        return _http(args)
    if args.token is not None:
        raise OptionError("--token is for --http: over stdio the agent starts this process itself")
    make_mcp_server(make_service(args)).run("stdio")
    return 0


def _http(args: argparse.Namespace) -> int:
    try:
        from mobilevlm_ros.server import run
        from mobilevlm_ros.server.mcp_http import make_mcp_app
    except ImportError as error:
        raise missing(error, "server") from error
    token = token_of(args)
    local = run.check_address(args.host, token)
    bound = run.listen(args.host, args.port)
    service = make_service(args)
    address = run.address_of(bound)
    print(f"serving MCP at {address}/mcp  (Ctrl-C ends it)", file=sys.stderr)
    run.make_uvicorn(make_mcp_app(service, token, local)).run(sockets=[bound])
    return 0
