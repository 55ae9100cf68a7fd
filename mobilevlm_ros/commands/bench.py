# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm bench`: how fast a model is on this machine."""

from __future__ import annotations

import argparse
import json
import sys

from mobilevlm_ros.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_bundle(parser)
    options.add_runtime(parser)
    parser.add_argument(
        "--spin", action="store_true", help="idle threads busy-wait, as the node's parameter spin_threads"
    )
    parser.add_argument("--tokens", type=int, default=256, help="of the answer (default: 256)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of encoding and prefill, for the median (default: 3)"
    )
    options.add_plot(parser, "also draw where the time goes")
    options.add_json(parser, "the table")


def main(args: argparse.Namespace) -> int:
    """Measures; the table goes to stdout, the stage to a terminal's stderr."""
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.evaluation import drawing
    from mobilevlm_ros.evaluation.latency import plot as latency_plot
    from mobilevlm_ros.evaluation.latency.measure import measure

    if args.plot is not None:
        drawing.check(args.plot, overwrite=args.overwrite)

    def progress(stage: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{stage} ...", end="", file=sys.stderr, flush=True)

    try:
        found = measure(
            lambda: load_runtime(args.bundle, args.backend, args.threads, args.spin),
            tokens=args.tokens,
            repeats=args.repeats,
            threads=args.threads,
            progress=progress,
        )
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
    print(json.dumps(found.as_dict()) if args.json else found.table(), flush=True)
    if args.plot is not None:  # last: a plot that cannot be written costs no figures
        drawing.save(latency_plot.draw(found), args.plot, overwrite=args.overwrite)
    return 0
