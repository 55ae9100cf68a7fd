# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm mcp`: an agent asks the cameras, over stdio or HTTP."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.commands.serving.serve import TOKEN, add_service_arguments, make_service, missing, token_of
from mobilevlm_ros.errors import OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.server.mcp.memory import Search
    from mobilevlm_ros.server.services.service import VisionService


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_service_arguments(parser)
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="MEMORY",
        help="memory of `mobilevlm index` that the agent may search (with --ros: the node's own)",
    )
    parser.add_argument("--http", action="store_true", help="streamable HTTP at /mcp instead of stdio")
    parser.add_argument("--host", default="127.0.0.1", help="with --http (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8081, help="with --http (default: 8081; 0: any free one)")
    parser.add_argument("--token", help=f"with --http: that clients must send (default: ${TOKEN})")


def main(args: argparse.Namespace) -> int:
    """Serves until the agent leaves, or Ctrl-C."""
    try:
        from mobilevlm_ros.server.mcp.server import make_mcp_server
    except ImportError as error:
        raise missing(error, "mcp") from error
    if args.http:
        return _http(args)
    if args.token is not None:
        raise OptionError("--token is for --http: over stdio the agent starts this process itself")
    service = make_service(args)
    make_mcp_server(service, _memory(args, service)).run("stdio")
    return 0


def _http(args: argparse.Namespace) -> int:
    try:
        from mobilevlm_ros.server import run
        from mobilevlm_ros.server.mcp.http import make_mcp_app
    except ImportError as error:
        raise missing(error, "server") from error
    token = token_of(args)
    local = run.check_address(args.host, token)
    bound = run.listen(args.host, args.port)
    service = make_service(args)
    memory = _memory(args, service)
    told = f"serving MCP at {run.address_of(bound)}/mcp  (Ctrl-C ends it)"
    server = run.make_uvicorn(make_mcp_app(service, token, local, memory))
    run.AnnouncedServer(server, service, lambda: print(told, file=sys.stderr, flush=True)).run([bound])
    return 0


def _memory(args: argparse.Namespace, service: VisionService) -> Search | None:
    """What the agent may search; None: nothing. Raises MemoryFileError and OptionError."""
    from mobilevlm_ros.memory.vectors import vectors_of
    from mobilevlm_ros.server.mcp.memory import file_memory
    from mobilevlm_ros.server.services.local_service import LocalService

    if isinstance(service, LocalService):
        return (
            None
            if args.memory is None
            else file_memory(args.memory.expanduser(), vectors_of(service.runtime))
        )
    if args.memory is not None:
        raise OptionError("--memory does not go with --ros: the node has its own (parameter memory.enabled)")
    from mobilevlm_ros.server.services.node_service import NodeService

    return service.search_memory if isinstance(service, NodeService) else None
