# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm tune`: finds the number of CPU threads that suits a bundle and this machine, and keeps it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.engine.bundle import Bundle
    from mobilevlm_ros.evaluation.latency.tune import Tuned

_MOST_THREADS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--bundle",
        type=Path,
        nargs="+",
        default=[],
        metavar="BUNDLE",
        help=f"bundle directories, for example of several block sizes (default: {options.SHIPPED})",
    )
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers to try (default: chosen for this machine)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turn (default: 3)")
    parser.add_argument("--no-spin", action="store_true", help="do not measure busy-waiting threads as well")
    parser.add_argument("--dry-run", action="store_true", help="measure and print, but keep nothing")
    options.add_json(parser, "what was measured")


def main(args: argparse.Namespace) -> int:
    """Measures each bundle; the tables go to stdout."""
    from mobilevlm_ros.engine.bundle import Bundle
    from mobilevlm_ros.engine.runtime import find_bundle
    from mobilevlm_ros.engine.tuning import keep_threads, tuning_file
    from mobilevlm_ros.evaluation.latency.tune import candidates
    from mobilevlm_ros.files.atomic import check_place

    threads = candidates() if args.threads is None else sorted(set(args.threads))
    for number in threads:
        if not 1 <= number <= _MOST_THREADS:
            raise OptionError(f"--threads {number}: give numbers from 1 to {_MOST_THREADS}")
    if args.rounds < 1:
        raise OptionError(f"--rounds is {args.rounds}: measure at least once")
    bundles = [Bundle.open(find_bundle(name)) for name in args.bundle or [None]]
    if not args.dry_run:
        check_place(tuning_file(), parents=True)
    told = []
    for bundle in bundles:
        found = _measure(bundle, threads, args)
        result = _result(bundle, found)
        if not args.dry_run:
            result["file"] = str(keep_threads(bundle, found.best.threads, result["seconds"]))
        told.append(result)
        if not args.json:
            print(_table(result, found))
    if args.json:
        print(json.dumps(told[0] if len(told) == 1 else {"bundles": told}))
    elif len(told) > 1:
        fastest = min(told, key=lambda one: one["best_seconds"])
        print(f"\nfastest: {fastest['bundle']}; `mobilevlm info` tells what each does to the answers")
    return 0


def _measure(bundle: Bundle, threads: list[int], args: argparse.Namespace) -> Tuned:
    from tqdm import tqdm

    from mobilevlm_ros.evaluation.latency.tune import Setting, tune

    with tqdm(disable=None, unit="run", leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int, setting: Setting) -> None:
            bar.total = total
            bar.set_description(f"{bundle.manifest.name}, {setting}", refresh=False)
            bar.update(done - bar.n)

        return tune(bundle.path, threads, spin=not args.no_spin, rounds=args.rounds, progress=progress)


def _result(bundle: Bundle, found: Tuned) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "model": bundle.manifest.name,
        "threads": found.best.threads,
        "best_seconds": found.seconds[found.best],
        "seconds": {str(setting): seconds for setting, seconds in found.seconds.items()},
        "spinning_gain": found.spinning_gain,
    }


def _table(result: dict[str, Any], found: Tuned) -> str:
    report = found.reports[found.best]
    lines = [f"{result['model']} on {report.machine}", "from a new picture to 16 tokens:"]
    for setting, seconds in found.seconds.items():
        mark = "  <- used from now on" if setting == found.best and "file" in result else ""
        lines.append(f"  {setting!s:<28} {seconds * 1e3:9.1f} ms{mark}")
    gain = found.spinning_gain
    if gain is not None:
        lines.append(
            f"busy-waiting threads (parameter spin_threads) would save {gain:.0%}, and cost several times as "
            "much where another process wants the cores: that is for you to decide"
            if gain > 0
            else "busy-waiting threads (parameter spin_threads) save nothing here"
        )
    if "file" in result:
        lines.append(f"kept in {result['file']}; threads that you name go before it")
    return "\n".join(lines)
