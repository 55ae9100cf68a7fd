# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm bench`: how fast a model is on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.evaluation.latency.measure import LatencyReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--bundle",
        type=Path,
        nargs="+",
        metavar="BUNDLE",
        help=f"bundle directory, or nano; several are compared (default: {options.SHIPPED})",
    )
    options.add_runtime(parser)
    parser.add_argument(
        "--spin", action="store_true", help="idle threads busy-wait, as the node's parameter spin_threads"
    )
    parser.add_argument("--tokens", type=int, help="of the answer (default: 256)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of encoding and prefill, for the median (default: 3)"
    )
    comparing = parser.add_argument_group("comparing")
    comparing.add_argument(
        "--compare",
        choices=("llama.cpp",),
        help="ask this engine the same in turn (pip install xllamacpp), from a picture to --tokens (16 then)",
    )
    comparing.add_argument(
        "--gguf",
        type=Path,
        metavar="DIR",
        help="the same model for it, by `mobilevlm export-gguf CHECKPOINT --type q4_0 -o DIR`",
    )
    comparing.add_argument("--rounds", type=int, default=5, help="pictures for each engine (default: 5)")
    comparing.add_argument(
        "--busy", type=int, default=0, metavar="N", help="processes that compute meanwhile, as on a robot"
    )
    options.add_plot(parser, "also draw where the time goes")
    options.add_json(parser, "the table")


def main(args: argparse.Namespace) -> int:
    """Measures; the table goes to stdout, the stage to a terminal's stderr."""
    if args.compare:
        return _compare(args)
    for name in ("gguf", "busy"):
        if getattr(args, name):
            raise OptionError(f"--{name} goes with --compare llama.cpp")
    from mobilevlm_ros.evaluation import drawing
    from mobilevlm_ros.evaluation.latency import plot as latency_plot

    if args.plot is not None:
        drawing.check(args.plot, overwrite=args.overwrite)

    bundles: list[Path | None] = args.bundle or [None]
    if len(bundles) == 1:
        found = [_measure(bundles[0], args)]
    else:
        found = [_measure_alone(bundle, args) for bundle in bundles]
    if args.json:
        told = [report.as_dict() for report in found]
        print(json.dumps(told[0] if len(told) == 1 else {"models": told}), flush=True)
    else:
        print("\n\n".join(report.table() for report in found), flush=True)
    if args.plot is not None:  # last: a plot that cannot be written costs no figures
        picture = latency_plot.draw(found[0]) if len(found) == 1 else latency_plot.draw_several(found)
        drawing.save(picture, args.plot, overwrite=args.overwrite)
    return 0


def _measure(bundle: Path | None, args: argparse.Namespace) -> LatencyReport:
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.evaluation.latency.measure import measure

    def progress(stage: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{stage} ...", end="", file=sys.stderr, flush=True)

    try:
        return measure(
            lambda: load_runtime(bundle, args.backend, args.threads, args.spin),
            tokens=256 if args.tokens is None else args.tokens,
            repeats=args.repeats,
            threads=args.threads,
            progress=progress,
        )
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)


def _measure_alone(bundle: Path | None, args: argparse.Namespace) -> LatencyReport:
    """In a process of its own: memory and threads of one model do not count for the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measure, bundle, args).result()


def _compare(args: argparse.Namespace) -> int:
    """Ours and llama.cpp in turn."""
    from tqdm import tqdm

    from mobilevlm_ros.engine.runtime import find_bundle
    from mobilevlm_ros.evaluation.latency.compare import compare

    if args.gguf is None:
        raise OptionError(
            "--compare needs the same model for llama.cpp: mobilevlm export-gguf CHECKPOINT --type q4_0 -o "
            "DIR, then --gguf DIR"
        )
    if args.plot is not None:
        raise OptionError("--plot draws our engine alone: leave it out with --compare")
    if len(args.bundle or ()) > 1:
        raise OptionError("--compare takes one --bundle")
    with tqdm(disable=None, unit="picture", leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        found = compare(
            find_bundle(args.bundle[0] if args.bundle else None),
            args.gguf,
            threads=args.threads,
            tokens=16 if args.tokens is None else args.tokens,
            rounds=args.rounds,
            busy=args.busy,
            progress=progress,
        )
    print(json.dumps(found.as_dict()) if args.json else found.table())
    return 0
