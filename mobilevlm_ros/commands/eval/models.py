# SPDX-License-Identifier: Apache-2.0
"""Which models a command examines, and how it shows that it is at it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import EvaluationError, OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.engine.runtime import Runtime
    from mobilevlm_ros.evaluation.benchmarks.types import Benchmark, Dataset
    from mobilevlm_ros.evaluation.runner.run import Plan, Progress

_SCORE_EVERY = 2.0  # seconds between running scores


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--bundle, --checkpoint, --backend, --threads."""
    models = parser.add_argument_group("what is examined")
    models.add_argument(
        "--bundle",
        type=Path,
        nargs="+",
        default=[],
        metavar="B",
        help="bundle directories, one or several side by side (default: the one that comes with the package)",
    )
    models.add_argument(
        "--checkpoint",
        type=Path,
        metavar="C",
        help="a checkpoint in float32, by PyTorch; with bundles: what their answers are compared with",
    )
    models.add_argument(
        "--backend", nargs="+", default=["auto"], help="what runs the bundles, one or several (default: auto)"
    )
    options.add_threads(models)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """--out, --limit, --shard, --one-by-one."""
    running = parser.add_argument_group("the run")
    running.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where answers are kept; the same command goes on where it was stopped (default: runs)",
    )
    running.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N questions")
    running.add_argument(
        "--shard", default="1/1", metavar="I/N", help="only the I-th of N parts, for several machines"
    )
    running.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="ask on a Ray cluster whose machines see the same files: its address, 'auto' (the one that this "
        "machine belongs to) or 'local' (a new one of this machine's CPUs)",
    )
    running.add_argument(
        "--shards", type=int, default=0, metavar="N", help="with --ray: parts (default: one for each CPU)"
    )
    running.add_argument(
        "--no-latency",
        action="store_true",
        help="do not measure the model's speed and memory on this machine, once for each model",
    )
    running.add_argument(
        "--one-by-one",
        action="store_true",
        help="share nothing between questions about one picture: slow, for measuring",
    )


def models(args: argparse.Namespace) -> list[tuple[Path | None, str]]:
    """(directory, backend) of each model, the float32 checkpoint first: it is the reference of the others."""
    chosen: list[tuple[Path | None, str]] = []
    if args.checkpoint is not None:
        chosen.append((args.checkpoint, "torch"))
    if args.bundle or args.checkpoint is None:
        chosen += [(bundle, backend) for bundle in args.bundle or [None] for backend in args.backend]
    return chosen


def plan(args: argparse.Namespace) -> Plan:
    """Raises OptionError for a limit below 0 or a shard that is not I/N with 1 <= I <= N."""
    from mobilevlm_ros.evaluation.runner.run import Plan

    if args.ray and args.shard != "1/1":
        raise OptionError("--ray makes shards of its own: leave --shard out")
    if args.shards < 0 or (args.shards and not args.ray):
        raise OptionError(f"--shards is {args.shards}: give a number above 0, with --ray ADDRESS")
    if args.limit < 0:
        raise OptionError(f"--limit is {args.limit}: ask at least 1 question, or 0 for all")
    number, _, parts = args.shard.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise OptionError(f"--shard is {args.shard!r}: give I/N with I from 1 to N, as 2/4")
    options.check_folder(args.out)
    return Plan(args.out, args.limit, (int(number), int(parts)), not args.one_by_one)


def ask_on_ray(
    args: argparse.Namespace, benchmark: Benchmark, dataset: Dataset, model: tuple[Path | None, str]
) -> None:
    """Has the cluster that --ray names ask every question of a model. Raises EvaluationError."""
    try:
        from mobilevlm_ros.evaluation.runner.fleet import FleetRun, ask_shards, connect
    except ImportError as error:
        raise EvaluationError("--ray needs ray: pip install 'mobilevlm_ros[fleet]'") from error
    from tqdm import tqdm

    connect(args.ray)
    path, backend = model
    with tqdm(desc=f"{benchmark.name} on Ray", unit="shard", disable=None, file=sys.stderr) as bar:

        def on_done(done: int, shards: int) -> None:
            if bar.total is None:
                bar.reset(shards)
            bar.update(done - bar.n)

        fleet = FleetRun(
            benchmark.name,
            dataset.folder.absolute(),
            None if path is None else path.absolute(),
            backend,
            args.threads,
            replace(plan(args), out=args.out.absolute()),
            args.shards,
        )
        ask_shards(fleet, on_done)


def runtimes(args: argparse.Namespace) -> Iterator[Runtime]:
    """Each model, loaded when the one before is done with."""
    from mobilevlm_ros.engine.runtime import load_runtime

    for path, backend in models(args):
        yield load_runtime(path, backend, args.threads)


class Bar:
    """A progress bar with time left and the score so far."""

    def __init__(self, benchmark: Benchmark, dataset: Dataset, label: str) -> None:
        from tqdm import tqdm

        self._benchmark, self._questions = benchmark, dataset.questions
        self._bar = tqdm(desc=f"{benchmark.name} {label}", unit="question", disable=None, file=sys.stderr)
        self._next = 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Shows it. Answers of an earlier process do not count for the speed."""
        if self._bar.total is None:
            self._bar.reset(progress.total)
            self._bar.initial = self._bar.n = progress.before
            if progress.before:
                print(f"going on: {progress.before} of {progress.total} are answered", file=sys.stderr)
        self._bar.update(progress.done - self._bar.n)
        if not self._bar.disable and time.monotonic() > self._next and progress.texts:
            score = self._benchmark.score([(q, progress.texts.get(q.key)) for q in self._questions])
            value = score.values[self._benchmark.headline]
            self._bar.set_postfix({self._benchmark.headline: "-" if value is None else f"{value:.1f}"})
            self._next = time.monotonic() + _SCORE_EVERY
