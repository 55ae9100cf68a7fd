# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm calibrate LABELS`: fit how sure a model may be of its choices, and tell what that is worth."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options

if TYPE_CHECKING:
    from mobilevlm_ros.engine.runtime import Runtime
    from mobilevlm_ros.evaluation.calibration.labels import Label
    from mobilevlm_ros.evaluation.calibration.temperature import ScoredAnswer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "labels",
        nargs="?",
        metavar="LABELS",
        help="JSONL or CSV file with image, question, choices, answer; or 'nano' or 'nano-hard': simulated",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help=f"bundle to measure and to write into (default: measure {options.SHIPPED}, write nothing)",
    )
    parser.add_argument("--count", type=int, default=1000, help="simulated questions (default: 1000)")
    parser.add_argument("--dry-run", action="store_true", help="measure, but leave the bundle as it is")
    parser.add_argument("--remove", action="store_true", help="take the bundle's calibration away, and end")
    options.add_plot(parser, "also draw reliability diagrams")
    options.add_threads(parser)
    options.add_json(parser, "the figures")


def main(args: argparse.Namespace) -> int:
    """Fits on every other question, measures on the rest; the table goes to stdout, progress to stderr."""
    from mobilevlm_ros.engine.bundle import Bundle
    from mobilevlm_ros.engine.runtime import find_bundle, load_runtime
    from mobilevlm_ros.errors import OptionError
    from mobilevlm_ros.evaluation import drawing
    from mobilevlm_ros.evaluation.calibration import reliability_plot
    from mobilevlm_ros.evaluation.calibration.temperature import LEAST, calibrated, fit, quality
    from mobilevlm_ros.files.atomic import check_place
    from mobilevlm_ros.inference.choices.calibration import CALIBRATION

    path = find_bundle(args.bundle)
    if args.remove:
        if args.bundle is None:
            raise OptionError("--remove changes a bundle: name it with --bundle")
        Bundle.open(path).remove_file(CALIBRATION)
        print(f"{path} has no calibration now", file=sys.stderr)
        return 0
    if args.labels is None:
        raise OptionError("no labels are given: name a JSONL or CSV file, or nano, or nano-hard")
    if args.plot is not None:
        drawing.check(args.plot, overwrite=args.overwrite)
    if args.bundle is not None and not args.dry_run:
        check_place(path / CALIBRATION)
    marked = _ask(load_runtime(path, threads=args.threads), args)
    if len(marked) < 2 * LEAST:
        raise OptionError(
            f"{len(marked)} labelled questions are too few: give at least {2 * LEAST}, half to fit, half to "
            "measure with"
        )
    fitted, held_out = marked[::2], marked[1::2]
    calibration = fit(fitted, Path(args.labels).name)
    after = calibrated(held_out, calibration)
    rows = {"before": quality(held_out), "after": quality(after)}
    better = rows["after"].nll < rows["before"].nll and rows["after"].ece <= rows["before"].ece
    if args.plot is not None:
        picture = reliability_plot.draw([("before", held_out), ("after", after)])
        drawing.save(picture, args.plot, overwrite=args.overwrite)
    written = better and args.bundle is not None and not args.dry_run
    if written:
        calibration.save(Bundle.open(path))
    if args.json:
        found = {name: dataclasses.asdict(row) for name, row in rows.items()}
        print(json.dumps({**dataclasses.asdict(calibration), **found, "better": better, "written": written}))
        return 0
    print(f"temperature {calibration.temperature} from {len(fitted)} questions; on {len(held_out)} others:\n")
    print("| | accuracy | mean confidence | ECE | NLL, nats | Brier |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row.accuracy:.1%} | {row.confidence:.1%} | {row.ece:.4f} | {row.nll:.4f} "
            f"| {row.brier:.4f} |"
        )
    if not better:
        print("\nIt does not help: the bundle stays as it was.")
    elif written:
        print(f"\nWritten to {path / CALIBRATION}; answers with choices are calibrated from now on.")
    elif args.bundle is None and not args.dry_run:
        print(f"\nNot written: name the bundle to write into with --bundle. {path} stays as it was.")
    return 0


def _ask(runtime: Runtime, args: argparse.Namespace) -> list[ScoredAnswer]:
    """Every labelled question answered, without the calibration that the bundle may have."""
    from tqdm import tqdm

    from mobilevlm_ros.evaluation.calibration.temperature import ScoredAnswer
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.inference.types import Frame, Request

    assistant = Assistant(runtime, calibrate=False)
    marked = []
    total = args.count if args.labels in ("nano", "nano-hard") else None
    for label in tqdm(_labels(args), desc="asking", unit="question", total=total, disable=None):
        answer = assistant.ask(Frame(label.image), Request(label.question, choices=label.choices))
        marked.append(ScoredAnswer(answer.choice_probabilities, label.choices.index(label.answer)))
    return marked


def _labels(args: argparse.Namespace) -> Iterator[Label]:
    from mobilevlm_ros.evaluation.calibration.labels import SIMULATED, from_file, simulated

    if args.labels in SIMULATED:
        return simulated(args.labels, args.count)
    return from_file(Path(args.labels))
