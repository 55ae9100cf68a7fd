# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval all --data ROOT`: every benchmark whose folder is there, then the report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.eval import benchmark as single
from mobilevlm_ros.commands.eval.models import add_model_arguments, add_run_arguments

FOLDERS = {"sqa": ("scienceqa", "sqa"), "mme": ("MME", "mme")}
"""Folder names that LLaVA and MobileVLM use beside the benchmark's own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="ROOT", help="holds a folder for each benchmark"
    )
    add_model_arguments(parser)
    add_run_arguments(parser)
    options.add_plot(parser, "also draw the report")
    options.add_json(parser, "the report")


def main(args: argparse.Namespace) -> int:
    """Benchmarks first, all folders being read before the first question is asked; the report last."""
    from mobilevlm_ros.commands.eval.report import show
    from mobilevlm_ros.errors import EvaluationError
    from mobilevlm_ros.evaluation.benchmarks.files import listing
    from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS, load
    from mobilevlm_ros.evaluation.report.plot import check

    folders = {
        name: folder
        for name in BENCHMARKS
        for folder in [
            next((args.data / n for n in FOLDERS.get(name, (name,)) if (args.data / n).is_dir()), None)
        ]
        if folder is not None
    }
    if not folders:
        wanted = ", ".join("/".join(FOLDERS.get(name, (name,))) for name in BENCHMARKS)
        raise EvaluationError(
            f"{args.data} holds no benchmark: expected folders {wanted}; found {listing(args.data)}"
        )
    for name in BENCHMARKS:
        if name not in folders:
            print(f"not run: {BENCHMARKS[name].title}, {args.data} has no folder of it", file=sys.stderr)
    if args.plot is not None:
        check(args.plot, overwrite=args.overwrite)
    loaded = [load(name, folder) for name, folder in folders.items()]
    status = 0
    quiet = argparse.Namespace(**{**vars(args), "json": False})
    for benchmark, dataset in loaded:
        outcomes = single.ask(args, benchmark, dataset)
        if args.json:
            status |= int(any(outcome.failures for outcome in outcomes))
        else:
            status |= single.report(quiet, benchmark, outcomes)
            print()
    return show(args.out, args.plot, args.json, args.overwrite) or status
