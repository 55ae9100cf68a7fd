# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval pope|gqa|sqa|textvqa|mme|mmbench`: asked and scored, or scored alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.eval.models import (
    Bar,
    add_model_arguments,
    add_run_arguments,
    ask_on_ray,
    models,
    plan,
    runtimes,
)
from mobilevlm_ros.errors import OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.engine.runtime import Runtime
    from mobilevlm_ros.evaluation.benchmarks.types import Benchmark, Dataset
    from mobilevlm_ros.evaluation.runner.agreement import Agreement
    from mobilevlm_ros.evaluation.runner.run import Outcome

_LATENCY_TOKENS = 32  # of the measured answer
_SHOWN = 10  # differing answers in the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the benchmark's folder, in LLaVA's layout"
    )
    add_model_arguments(parser)
    add_run_arguments(parser)
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
    options.add_json(parser, "the result, as the last line,")


def main(args: argparse.Namespace) -> int:
    """The result goes to stdout, what a reader must know of it to stderr."""
    from mobilevlm_ros.evaluation.benchmarks.registry import load

    benchmark, dataset = load(args.kind, args.data)
    if args.score_only:
        return _score(args, benchmark, dataset)
    for name in ("partial", "as_official"):
        if getattr(args, name):
            raise OptionError(f"--{name.replace('_', '-')} goes with --score-only ANSWERS")
    outcomes = ask(args, benchmark, dataset)
    return report(args, benchmark, outcomes)


def ask(args: argparse.Namespace, benchmark: Benchmark, dataset: Dataset) -> list[Outcome]:
    """Runs the benchmark on every model that the arguments name."""
    from mobilevlm_ros.evaluation.runner.run import check_pictures, run

    chosen = plan(args)
    check_pictures(dataset.questions[: chosen.limit] if chosen.limit else dataset.questions)
    if args.ray:
        for model in models(args):
            ask_on_ray(args, benchmark, dataset, model)
    outcomes = []
    for runtime in runtimes(args):  # after --ray, this finds all answered, and scores
        label = f"{runtime.bundle.manifest.name} ({runtime.backend_name})"
        with Bar(benchmark, dataset, label) as bar:
            outcomes.append(run(benchmark, dataset, runtime, chosen, bar))
        if not args.no_latency:
            _measure(runtime, outcomes[-1].folder.parent, args.threads)
    return outcomes


def _measure(runtime: Runtime, folder: Path, threads: int) -> None:
    """Speed and memory beside the scores, once for each model."""
    from mobilevlm_ros.evaluation.latency.measure import measure
    from mobilevlm_ros.evaluation.report.runs import LATENCY
    from mobilevlm_ros.evaluation.runner.journal import write_whole

    path = folder / LATENCY
    if not path.is_file():
        print("measuring speed and memory ...", file=sys.stderr)
        found = measure(lambda: runtime, tokens=_LATENCY_TOKENS, threads=threads)
        write_whole(path, json.dumps(found.as_dict(), indent=1) + "\n")


def report(args: argparse.Namespace, benchmark: Benchmark, outcomes: list[Outcome]) -> int:
    """Prints scores, and what differs between the models; returns the exit status."""
    from mobilevlm_ros.evaluation.runner.agreement import agreement
    from mobilevlm_ros.evaluation.runner.journal import write_whole

    failed = False
    for outcome in outcomes:
        name = outcome.summary["model_id"]
        for failure in outcome.failures:
            print(f"mobilevlm: error: {benchmark.title}, {failure}", file=sys.stderr)
        answered, total = sum(text is not None for text in outcome.texts), len(outcome.texts)
        if outcome.result is None:
            failed = failed or bool(outcome.failures)
            why = "" if outcome.failures else "; the other shards have the rest"
            print(f"{name}: {answered} of {total} questions answered, no score yet{why}", file=sys.stderr)
        elif not args.json:
            print(f"{benchmark.title}, {name}\n{table(benchmark, dict(outcome.summary))}")
            print(f"answers and summary: {outcome.folder}")
    compared = [agreement(outcomes[0], other) for other in outcomes[1:]]
    for pair in compared:
        path = args.out / f"differences-{benchmark.name}-{pair.candidate}-from-{pair.reference}.jsonl"
        lines = [json.dumps(dataclasses.asdict(d)) + "\n" for d in pair.different]
        write_whole(path, "".join(lines))
        if not args.json:
            print(_differences(pair, path))
    if args.json:
        summaries = [dict(outcome.summary) for outcome in outcomes]
        told = {
            "benchmark": benchmark.name,
            "models": summaries,
            "agreement": [p.as_dict() for p in compared],
        }
        print(json.dumps(summaries[0] if len(summaries) == 1 else told))
    return 1 if failed else 0


def _differences(pair: Agreement, path: Path) -> str:
    lines = [f"\n{pair.candidate} answers as {pair.reference} in {pair.equal} of {pair.questions} questions"]
    if pair.different:
        lines += [
            f"all that differ: {path}",
            "",
            "| row | question | reference | candidate |",
            "|---|---|---|---|",
        ]
    for d in pair.different[:_SHOWN]:
        cells = (str(d.row), d.question.split("\n")[0], d.reference, d.candidate)
        lines.append("| " + " | ".join(c.replace("\n", " ").replace("|", "/")[:60] for c in cells) + " |")
    return "\n".join(lines)


def _score(args: argparse.Namespace, benchmark: Benchmark, dataset: Dataset) -> int:
    from mobilevlm_ros.evaluation.benchmarks.scoring.result import official_dict, score_files

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
    if told.get("asked_now"):
        lines.append(f"{told['asked_now'] / told['seconds']:.1f} questions/s")
    return "\n".join(lines)
