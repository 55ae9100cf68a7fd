# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval nano`: how often nano answers right, on scenes and pairs of pictures that no training has
seen, and how sure it is of what it cannot know.

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

    from mobilevlm_ros.evaluation.nano.exam import Report
    from mobilevlm_ros.evaluation.nano.foreign import ForeignReport
    from mobilevlm_ros.inference.assistant import Assistant


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
    parser.add_argument("--count", type=int, default=2000, help="questions about scenes (default: 2000)")
    parser.add_argument(
        "--pairs", type=int, default=500, help="questions about two pictures (default: 500; 0: none)"
    )
    parser.add_argument(
        "--foreign",
        type=int,
        default=1000,
        help="questions that nano cannot know the answer to (default: 1000; 0: none)",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="photographs for --foreign; without it, drawn pictures that are no scene",
    )
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
    """Examines; the tables go to stdout, progress to stderr."""
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.errors import OptionError
    from mobilevlm_ros.inference.assistant import Assistant

    if args.count < 1:
        raise OptionError(f"--count is {args.count}: ask at least 1 question")
    for name in ("pairs", "foreign"):
        if getattr(args, name) < 0:
            raise OptionError(f"--{name} is {getattr(args, name)}: 0 asks none")
    if args.write_pope is not None:
        return _write_pope(args)
    if args.compare is not None:
        return _compare(args)
    photos = _photos(args.photos)
    if args.checkpoint is not None:
        runtime = load_runtime(args.checkpoint, "torch", args.threads)
    else:
        runtime = load_runtime(args.bundle, threads=args.threads)
    report = _examine(Assistant(runtime), args, photos)
    told = report[0].as_dict()
    if args.json:
        told |= {name: found.as_dict() for name, found in zip(("pairs", "foreign"), report[1:]) if found}
        print(json.dumps(told))
        return 0
    print("\n\n".join(found.table() for found in report if found))
    for failure in [f for found in report[:2] if found for f in found.failures][: args.failures]:
        print(json.dumps(failure))
    return 0


def _examine(
    assistant: Assistant, args: argparse.Namespace, photos: list[NDArray[np.uint8]]
) -> tuple[Report, Report | None, ForeignReport | None]:
    """The marks about scenes and about pairs, and the confidences about what is foreign."""
    from tqdm import tqdm

    from mobilevlm_ros.evaluation.nano.exam import evaluate
    from mobilevlm_ros.evaluation.nano.foreign import examine_foreign
    from mobilevlm_ros.evaluation.nano.pairs import evaluate_pairs
    from mobilevlm_ros.inference.types import Frame, Request

    def text(image: NDArray[np.uint8], question: str) -> str:
        return assistant.ask(Frame(image), Request(question)).text

    def pair(images: tuple[NDArray[np.uint8], NDArray[np.uint8]], question: str) -> str:
        return assistant.ask([Frame(image) for image in images], Request(question)).text

    def sure(image: NDArray[np.uint8], question: str, choices: tuple[str, ...]) -> tuple[str, float]:
        answer = assistant.ask(Frame(image), Request(question, choices=choices))
        return answer.text, answer.confidence

    total = args.count + args.pairs + args.foreign
    with tqdm(total=total, desc="examining", unit="question", disable=None) as bar:

        def on_question(report: Report) -> None:
            bar.set_postfix(accuracy=f"{report.accuracy:.3f}")
            bar.update()

        scenes = evaluate(text, args.count, on_question=on_question)
        pairs = evaluate_pairs(pair, args.pairs, on_question=on_question) if args.pairs else None
        foreign = (
            examine_foreign(sure, args.foreign, photos, on_question=bar.update) if args.foreign else None
        )
    return scenes, pairs, foreign


def _photos(folder: Path | None) -> list[NDArray[np.uint8]]:
    """The pictures of a folder by name. Raises OptionError where there are none."""
    from mobilevlm_ros.errors import OptionError
    from mobilevlm_ros.processing.image_file import read_picture

    if folder is None:
        return []
    files = [f for f in sorted(folder.glob("*")) if f.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
    if not files:
        raise OptionError(f"--photos {folder}: no .jpg, .png or .webp there; name a folder with photographs")
    return [read_picture(file) for file in files]


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
