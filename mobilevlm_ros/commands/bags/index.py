# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm index`: what was said about recordings becomes a memory that one can search."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from mobilevlm_ros.commands import options

ANY_ORDER = True
MEMORY = Path("memory.db")
"""What `index` writes and `search` reads where nothing else is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="files of records (*.jsonl) of caption-bag, ask-bag or monitor-bag, or directories of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=MEMORY,
        metavar="MEMORY",
        help="the memory, an SQLite file; what is in it stays, nothing is added twice (default: memory.db)",
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--odometry",
        default="",
        metavar="TOPIC",
        help="topic of the recordings that says where the robot was (nav_msgs/Odometry, PoseStamped, "
        "PoseWithCovarianceStamped), for `search --near`",
    )
    places.add_argument(
        "--tf",
        default="",
        metavar="FRAME",
        help="keep the cameras' places in this frame, such as map, by the recordings' /tf and /tf_static",
    )
    parser.add_argument(
        "--thumbnails", action="store_true", help="add small pictures of the recordings, for `search --sheet`"
    )
    parser.add_argument(
        "--encoding",
        action="append",
        default=[],
        metavar="ENTRY",
        help="with --thumbnails: how to read an encoding, as the node's parameter `encodings`",
    )
    options.add_bundle(parser)
    options.add_quiet(parser)
    options.add_json(parser, "the counts")


def main(args: argparse.Namespace) -> int:
    """Adds the records; the counts go to stdout, lines that are no record to stderr."""
    from mobilevlm_ros.bags.index import index, record_files
    from mobilevlm_ros.commands.bags.bag_options import check_installed
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.files.atomic import check_place
    from mobilevlm_ros.memory.store import MemoryStore
    from mobilevlm_ros.memory.vectors import vectors_of
    from mobilevlm_ros.ros.images.encodings import parse_encodings

    places = None
    if args.odometry or args.tf or args.thumbnails:
        check_installed()
        from mobilevlm_ros.bags.enrich import PlaceSource

        places = PlaceSource(args.odometry, args.tf)
    record_files(args.paths)  # before the memory is made
    check_place(args.output.expanduser())
    vectors = vectors_of(load_runtime(args.bundle, threads=1))
    with MemoryStore(args.output.expanduser(), writable=True) as store:
        store.update_vectors(vectors)
        told = index(
            args.paths,
            store,
            vectors,
            places=places,
            pictures=args.thumbnails,
            encodings=parse_encodings(args.encoding),
            progress=not args.quiet,
        )
        count, _ = store.size()
    for line in told.trouble:
        print(f"passed over: {line}", file=sys.stderr)
    if args.json:
        print(json.dumps({**asdict(told), "memory": str(args.output), "records": count}))
        return 0
    parts = [f"{told.added} new", f"{told.known} known already", f"{told.passed} that say nothing new"]
    parts += [f"{told.bad} lines that are no record"] * bool(told.bad)
    print(f"{args.output}: {', '.join(parts)}; {count} in all")
    return 0
