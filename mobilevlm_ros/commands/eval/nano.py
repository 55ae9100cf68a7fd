# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval nano`: how often nano answers right, on scenes that no training has seen.

With `--compare CHECKPOINT`: how often the bundle answers as the checkpoint does in float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_bundle(parser)
    parser.add_argument(
        "--checkpoint", type=Path, help="examine a checkpoint in float32 instead (needs torch)"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="CHECKPOINT",
        help="compare a bundle with its float32 checkpoint instead",
    )
    parser.add_argument("--count", type=int, default=2000, help="questions (default: 2000)")
    options.add_threads(parser)
    parser.add_argument(
        "--failures", type=int, default=0, metavar="N", help="also print the first N wrong answers"
    )
    parser.add_argument(
        "--write-pope",
        type=Path,
        metavar="DIR",
        help="write simulated scenes in POPE's form instead, for `mobilevlm eval pope --data DIR`",
    )
    parser.add_argument(
        "--pictures", type=int, default=500, help="with --write-pope: 18 questions about each (default: 500)"
    )
    options.add_json(parser, "marks and every wrong answer")


def main(args: argparse.Namespace) -> int:
    """Examines; the table goes to stdout, progress to stderr."""
    from tqdm import tqdm

    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.errors import OptionError
    from mobilevlm_ros.evaluation.nano.exam import Report, evaluate
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.inference.types import Frame, Request

    if args.count < 1:
        raise OptionError(f"--count is {args.count}: ask at least 1 question")
    if args.write_pope is not None:
        return _write_pope(args)
    if args.compare is not None:
        return _compare(args)
    if args.checkpoint is not None:
        runtime = load_runtime(args.checkpoint, "torch", args.threads)
    else:
        runtime = load_runtime(args.bundle, threads=args.threads)
    assistant = Assistant(runtime)

    def answer(image: NDArray[np.uint8], question: str) -> str:
        return assistant.ask(Frame(image), Request(question)).text

    with tqdm(total=args.count, desc="examining", unit="question", disable=None) as bar:

        def on_question(report: Report) -> None:
            bar.set_postfix(accuracy=f"{report.accuracy:.3f}")
            bar.update()

        report = evaluate(answer, args.count, on_question=on_question)
    if args.json:
        print(json.dumps(report.as_dict()))
        return 0
    print(report.table())
    for failure in report.failures[: args.failures]:
        print(json.dumps(failure))
    return 0


def _write_pope(args: argparse.Namespace) -> int:
    """Nano's scenes in the form of POPE's files."""
    from tqdm import tqdm

    from mobilevlm_ros.evaluation.nano.pope_shaped import write_pope_shaped

    with tqdm(total=args.pictures, desc="drawing", unit="picture", disable=None) as bar:
        count = write_pope_shaped(args.write_pope, args.pictures, bar.update)
    print(f"{args.write_pope}: {count} questions about {args.pictures} pictures")
    return 0


def _compare(args: argparse.Namespace) -> int:
    """Greedy answers of bundle and checkpoint to other questions than the examination's."""
    import dataclasses

    from tqdm import tqdm

    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.evaluation.nano.exam import FIRST_COMPARISON_SEED, exam
    from mobilevlm_ros.export.quality.agreement import measure

    questions = ((image, e.question) for image, e, _ in exam(args.count, FIRST_COMPARISON_SEED))
    with tqdm(total=args.count, desc="comparing", unit="question", disable=None) as bar:
        outcome = measure(
            load_runtime(args.compare, "torch", args.threads),
            load_runtime(args.bundle, threads=args.threads),
            questions,
            progress=lambda done: bar.update(),
        )
    if args.json:
        print(json.dumps(dataclasses.asdict(outcome)))
        return 0
    print("| questions | equal answers | share | mean KL, nats | worst KL, nats |\n|---|---|---|---|---|")
    print(
        f"| {outcome.samples} | {outcome.equal} | {outcome.fraction:.1%} | {outcome.mean_kl:.1e} "
        f"| {outcome.worst_kl:.2f} |"
    )
    for number, question, wanted, given in outcome.different[: args.failures]:
        print(json.dumps({"number": number, "question": question, "float32": wanted, "bundle": given}))
    return 0
