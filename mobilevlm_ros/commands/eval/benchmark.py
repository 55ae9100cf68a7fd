# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval pope|gqa|sqa|textvqa|mme|mmbench`: asked and scored, or scored alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.errors import OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.evaluation.benchmarks.types import Benchmark, Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the benchmark's folder, in LLaVA's layout"
    )
    scoring = parser.add_argument_group("scoring answers that are there")
    scoring.add_argument(
        "--score-only",
        type=Path,
        nargs="+",
        metavar="ANSWERS",
        help="score these answers files (.jsonl, one model, in order) instead of asking",
    )
    scoring.add_argument(
        "--partial", action="store_true", help="score the rows that fit; the result says how many do not"
    )
    scoring.add_argument(
        "--as-official", action="store_true", help="what the official scorer prints, and what it hides"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, as the last line")


def main(args: argparse.Namespace) -> int:
    """The result goes to stdout, what a reader must know of it to stderr."""
    from mobilevlm_ros.evaluation.benchmarks.registry import load

    benchmark, dataset = load(args.kind, args.data)
    if args.score_only:
        return _score(args, benchmark, dataset)
    for name in ("partial", "as_official"):
        if getattr(args, name):
            raise OptionError(f"--{name.replace('_', '-')} goes with --score-only ANSWERS")
    raise OptionError("name answers to score: --score-only ANSWERS")


def _score(args: argparse.Namespace, benchmark: Benchmark, dataset: Dataset) -> int:
    from mobilevlm_ros.evaluation.benchmarks.scoring import official_dict, score_files

    if args.as_official:
        told = official_dict(benchmark, dataset, args.score_only)
        for hidden in told["hides"]:
            print(f"hidden: {hidden}", file=sys.stderr)
        if told["stops"]:
            print(f"the official scorer stops: {told['stops']}", file=sys.stderr)
        print(json.dumps(told) if args.json else table(benchmark, told))
        return 1 if told["stops"] else 0
    result = score_files(benchmark, dataset, args.score_only, args.partial)
    told = result.as_dict()
    for note in result.notes():
        print(f"note: {note}", file=sys.stderr)
    if result.refused:
        print(f"mobilevlm: error: {benchmark.title}: {result.refused}", file=sys.stderr)
    if args.json:
        print(json.dumps(told))
    elif not result.refused:
        print(table(benchmark, told))
    return 1 if result.refused else 0


def table(benchmark: Benchmark, told: dict[str, Any]) -> str:
    """The figures as lines: name, value, and the interval of the headline."""
    lines = []
    for name in benchmark.values:
        value = told[name]
        line = f"{name:<14} {'-' if value is None else f'{value:.2f}'}"
        if name == benchmark.headline and told.get("interval95"):
            low, high = told["interval95"]
            line += f"  (95 %: {low:.2f} to {high:.2f})"
        lines.append(line)
    rows = ("questions", "scored", "missing", "foreign", "repeated")
    lines.append(", ".join(f"{told[name]} {name}" for name in rows if told[name] or name in rows[:2]))
    return "\n".join(lines)
