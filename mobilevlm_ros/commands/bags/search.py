# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm search`: finds in a memory what is described or asked for in plain words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.bags.index import MEMORY
from mobilevlm_ros.errors import MobileVLMError, OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.memory.record import Match, Query
    from mobilevlm_ros.memory.vectors import TextVectors

ANY_ORDER = True
SEARCH_TIMEOUT = 15.0
"""Seconds for a node's response."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "text", nargs="?", default="", help="a description or a question (default: the newest records)"
    )
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="MEMORY",
        help="of `mobilevlm index`, or of a node (default: memory.db)",
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="most matches (default: 5)")
    only = parser.add_argument_group("only")
    only.add_argument("--camera", default="", help="of this camera")
    only.add_argument("--kind", default="", choices=("caption", "answer", "monitor"), help="of this kind")
    when = "2026-03-01T12:03 (UTC, or with an offset), or seconds of the images' clock"
    only.add_argument("--from", dest="start", metavar="TIME", help=f"from this time on: {when}")
    only.add_argument("--to", dest="end", metavar="TIME", help="up to this time")
    only.add_argument("--near", nargs="+", metavar=("X", "Y"), help="near this place, metres")
    only.add_argument(
        "--within",
        "--radius",
        dest="radius",
        type=float,
        metavar="M",
        help="with --near: within so many metres (default: 5)",
    )
    options.add_bundle(parser)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also draw what was found")
    options.add_overwrite(parser)
    options.add_json(parser, "the matches")
    parser.add_argument("--ros", action="store_true", help="ask a running node's memory (ROS 2)")
    parser.add_argument("--namespace", default="", help="with --ros: of the node (default: the root)")
    parser.add_argument("--node", default="mobilevlm", help="with --ros: its name (default: mobilevlm)")


def main(args: argparse.Namespace) -> int:
    """Prints what was found, best first; 0 also where that is nothing."""
    from mobilevlm_ros.evaluation import drawing
    from mobilevlm_ros.memory.filters import check
    from mobilevlm_ros.memory.sheet import contact_sheet

    query = _query(args)
    check(query)
    if args.sheet is not None:
        drawing.check(args.sheet, overwrite=args.overwrite)
    matches = _of_node(args, query) if args.ros else _of_file(args, query)
    if args.json:
        print(json.dumps([told(match) for match in matches], indent=1))
    else:
        for match in matches:
            print(line(match))
        if not matches:
            print("nothing matches", file=sys.stderr)
    if args.sheet is not None:
        drawing.save(contact_sheet(matches), args.sheet, overwrite=args.overwrite)
    return 0


def _query(args: argparse.Namespace) -> Query:
    from mobilevlm_ros.memory.record import Query

    x = y = radius = 0.0
    text = args.text
    if args.near is not None:
        x, y, rest = _place(args.near)
        radius = 5.0 if args.radius is None else args.radius
        if len(rest) > (not text):
            raise OptionError(f"--near has {rest[0]!r} too many: give two numbers, metres")
        text = text or "".join(rest)
    elif args.radius is not None:
        raise OptionError("--within goes with --near X Y: give the place too")
    return Query(
        text=text,
        camera=args.camera,
        kind=args.kind,
        start_ns=0 if args.start is None else moment(args.start, "--from"),
        end_ns=0 if args.end is None else moment(args.end, "--to"),
        x=x,
        y=y,
        radius=radius,
        limit=args.top,
        thumbnails=args.sheet is not None,
    )


def _of_file(args: argparse.Namespace, query: Query) -> list[Match]:
    from mobilevlm_ros.memory.search import Searcher
    from mobilevlm_ros.memory.store import MemoryStore

    with MemoryStore((args.memory or MEMORY).expanduser()) as store:
        vectors = _vectors(args.bundle, store.vector_name) if query.text.strip() else None
        return Searcher(store, vectors).search(query)


def _vectors(bundle: Path | None, name: str) -> TextVectors | None:
    """Vectors like those of the memory; without them words alone are searched, which is said."""
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.memory.vectors import vectors_of

    if not name:
        return None
    try:
        vectors = vectors_of(load_runtime(bundle, threads=1))
    except MobileVLMError:
        if bundle is not None:
            raise
        vectors = None
    if vectors is not None and vectors.name == name:
        return vectors
    made = name.partition(":")[0]
    print(f"searched by words only: the memory's vectors are of {made}; name it by --bundle", file=sys.stderr)
    return None


def _of_node(args: argparse.Namespace, query: Query) -> list[Match]:
    if args.memory is not None or args.bundle is not None:
        raise OptionError("--memory and --bundle do not go with --ros: the node has its own")
    try:
        from mobilevlm_ros.client import AskImageClient
        from mobilevlm_ros.client.memory import matches_of, request_of
    except ImportError as error:
        raise MobileVLMError(
            f"--ros needs ROS 2 and mobilevlm_msgs ({error}): source the setup.bash of your ROS and of the "
            "workspace that holds this package"
        ) from error
    prefix = f"/{args.namespace.strip('/')}/" if args.namespace.strip("/") else "/"
    with AskImageClient(f"{prefix}ask_image") as client:
        return matches_of(client.search_memory_of(request_of(query), args.node, SEARCH_TIMEOUT))


def moment(text: str, option: str) -> int:
    """Nanoseconds of a time: seconds, or ISO 8601 (UTC where it names no offset). Raises OptionError."""
    try:
        whole, _, part = text.partition(".")
        if whole.isdecimal() and (not part or part.isdecimal()):
            return int(whole) * 1_000_000_000 + int(part[:9].ljust(9, "0"))
        given = datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
        seconds = (given if given.tzinfo else given.replace(tzinfo=timezone.utc)).timestamp()
        return int(seconds) * 1_000_000_000 + given.microsecond * 1000
    except (ValueError, OverflowError) as error:
        raise OptionError(
            f"{option} is {text!r}: give a time like 2026-03-01T12:03:30, or seconds of the images' clock"
        ) from error


def _place(given: Sequence[str]) -> tuple[float, float, Sequence[str]]:
    """X and Y of `--near X Y` or `--near X,Y`, and what stands behind them: the text, perhaps."""
    used = 1 if "," in given[0] else 2
    try:
        x, y = map(float, given[0].split(",") if used == 1 else given[:2])
    except ValueError as error:
        told = " ".join(given[:used])
        raise OptionError(f"--near is {told!r}: give two numbers, metres, as in --near 3.5 -2") from error
    return x, y, given[used:]


def line(match: Match) -> str:
    """One match for people: time, camera, stamp, score, text."""
    from mobilevlm_ros.memory.sheet import time_text

    record = match.record
    stamp = f"{record.stamp_ns // 1_000_000_000}.{record.stamp_ns % 1_000_000_000:09d}"
    score = f"{match.score:.2f}" if match.score else "-"
    return f"{time_text(record.stamp_ns)}  {record.camera or '-'}  {stamp}  {score}  {record.shown}"


def told(match: Match) -> dict[str, Any]:
    """One match for programs."""
    record = match.record
    place = record.position
    return {
        "score": round(match.score, 4),
        "text": record.shown,
        "kind": record.kind,
        "camera": record.camera,
        "stamp_ns": record.stamp_ns,
        "frame_id": record.frame_id,
        "confidence": record.confidence,
        "question": record.question,
        "model_id": record.model_id,
        "topic": record.topic,
        "bag": record.bag,
        "position": None
        if place is None
        else {"frame": place.frame, "x": place.x, "y": place.y, "z": place.z},
    }
