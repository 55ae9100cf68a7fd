# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval compare A B`: is B better than A, or is it luck?"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options

if TYPE_CHECKING:
    from mobilevlm_ros.evaluation.benchmarks.types import Benchmark, Dataset, Score
    from mobilevlm_ros.evaluation.statistics import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    for name in ("a", "b"):
        parser.add_argument(
            name,
            type=Path,
            metavar=name.upper(),
            help="an answers file (answers.jsonl of a run, or official)",
        )
    parser.add_argument(
        "--benchmark", help="which the answers are of (default: what A's run.json says; or `vqa`: an exam's)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the benchmark's folder; an exam's need none"
    )
    options.add_json(parser, "the comparison")


def main(args: argparse.Namespace) -> int:
    """The verdict goes to stdout."""
    from mobilevlm_ros.errors import OptionError
    from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS, load
    from mobilevlm_ros.evaluation.exam.compare import compare_exams

    name = args.benchmark or _benchmark_of(args.a)
    if name == "vqa":
        found = compare_exams(args.a, args.b)
    elif name in BENCHMARKS:
        if args.data is None:
            raise OptionError(f"--data DIR is missing: the folder of {BENCHMARKS[name].title}")
        found = _compare(*load(name, args.data), args.a, args.b)
    else:
        raise OptionError(f"there is no benchmark {name!r}: give --benchmark {', '.join(BENCHMARKS)} or vqa")
    if args.json:
        print(json.dumps(dataclasses.asdict(found)))
        return 0
    low, high = found.interval
    print(
        f"B - A: {found.difference:+.2f} (95 %: {low:+.2f} to {high:+.2f}), "
        f"paired bootstrap p = {found.p_value:.3g}"
    )
    print(
        f"only A right: {found.only_a}, only B right: {found.only_b}; McNemar's exact p = {found.mcnemar:.3g}"
    )
    print(verdict(found))
    return 0


def verdict(found: Comparison) -> str:
    """One sentence, at the 95 % level of the interval."""
    low, high = found.interval
    if low > 0:
        return "B is better."
    if high < 0:
        return "A is better."
    return "No difference is shown: the interval holds 0. More questions would narrow it."


def _benchmark_of(answers: Path) -> str:
    """As run.json beside the answers says; 'vqa' where there is none."""
    run = answers.parent / "run.json"
    try:
        return str(json.loads(run.read_text(encoding="utf-8"))["benchmark"])
    except (OSError, ValueError, KeyError, TypeError):
        return "vqa"


def _compare(benchmark: Benchmark, dataset: Dataset, a: Path, b: Path) -> Comparison:
    import numpy as np

    from mobilevlm_ros.evaluation.statistics import compare

    scores = [_score(benchmark, dataset, path) for path in (a, b)]
    right = [np.array([j.credit >= 0.5 for j in score.judged]) for score in scores]
    return compare(scores[0].metric, scores[1].metric, right[0], right[1])


def _score(benchmark: Benchmark, dataset: Dataset, path: Path) -> Score:
    from mobilevlm_ros.errors import EvaluationError
    from mobilevlm_ros.evaluation.benchmarks.scoring.result import score_files

    result = score_files(benchmark, dataset, [path])
    if result.score is None:
        raise EvaluationError(f"{path}: {result.refused}")
    return result.score
