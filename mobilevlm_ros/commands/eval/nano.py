# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval nano`: how often nano answers right, on scenes and pairs of pictures that no training has
seen, and how sure it is of what it cannot know.

Scenes and pairs go through the runner of the other benchmarks; the same command goes on where it was stopped.
With `--compare CHECKPOINT`: how often the bundle answers as the checkpoint does in float32.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.eval.models import Bar, add_model_arguments, runtimes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from mobilevlm_ros.engine.runtime import Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_model_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where answers are kept; the same command goes on where it was stopped (default: runs)",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="CHECKPOINT",
        help="say how often each bundle answers as this checkpoint does in float32, instead",
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
    from mobilevlm_ros.errors import OptionError

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
    options.check_folder(args.out)
    told = []
    for runtime in runtimes(args):
        found, tables = _examine(runtime, args, photos)
        told.append(found)
        if not args.json:
            print("\n\n".join([found["model_id"], *tables]))
    if args.json:
        print(json.dumps(told[0] if len(told) == 1 else {"models": told}))
    return 0


def _examine(
    runtime: Runtime, args: argparse.Namespace, photos: list[NDArray[np.uint8]]
) -> tuple[dict[str, Any], list[str]]:
    """Scores about scenes and about pairs, confidences about what is foreign; and the same as tables."""
    from mobilevlm_ros.evaluation.nano.benchmark import table
    from mobilevlm_ros.evaluation.nano.exam import SCENES, scene_questions
    from mobilevlm_ros.evaluation.nano.pairs import PAIRS, pair_questions
    from mobilevlm_ros.evaluation.runner.identity import model_identity
    from mobilevlm_ros.evaluation.runner.run import Plan, run

    told: dict[str, Any] = {"model_id": model_identity(runtime)["model_id"]}
    tables = []
    parts = (("scenes", SCENES, scene_questions, args.count), ("pairs", PAIRS, pair_questions, args.pairs))
    for name, benchmark, questions, count in parts:
        if not count:
            continue
        dataset = questions(count)
        named = replace(benchmark, name=f"{benchmark.name}-{count}")  # each length has a folder of its own
        with Bar(named, dataset, told["model_id"]) as bar:
            summary = run(named, dataset, runtime, Plan(args.out), bar).summary
        told[name] = dict(summary)
        failures = summary["details"]["failures"][: args.failures]
        tables.append("\n".join([table(summary["details"]), *_interval(summary), *map(json.dumps, failures)]))
    if args.foreign:
        told["foreign"], foreign = _ask_foreign(runtime, args, photos)
        tables.append(foreign)
    return told, tables


def _interval(summary: Mapping[str, Any]) -> list[str]:
    if summary["interval95"] is None:
        return []
    low, high = summary["interval95"]
    return ["", f"95 % interval: {low:.1f} % to {high:.1f} %"]


def _ask_foreign(
    runtime: Runtime, args: argparse.Namespace, photos: list[NDArray[np.uint8]]
) -> tuple[dict[str, Any], str]:
    """What counts here is the confidence, and every other question has choices: as a robot asks."""
    from tqdm import tqdm

    from mobilevlm_ros.evaluation.nano.foreign import examine_foreign
    from mobilevlm_ros.evaluation.nano.kept_confidences import KeptConfidences
    from mobilevlm_ros.evaluation.runner.identity import model_identity
    from mobilevlm_ros.inference.assistant import Assistant
    from mobilevlm_ros.inference.types import Frame, Request

    assistant, identity = Assistant(runtime), model_identity(runtime)

    def sure(image: NDArray[np.uint8], question: str, choices: tuple[str, ...]) -> tuple[str, float]:
        answer = assistant.ask(Frame(image), Request(question, choices=choices))
        return answer.text, answer.confidence

    folder = args.out / str(identity["model_id"]) / "nano-foreign"
    with KeptConfidences(folder, identity, photos) as kept:
        before = sum(number < args.foreign for number in kept.known)
        with tqdm(total=args.foreign, initial=before, desc="foreign", unit="question", disable=None) as bar:

            def on_question(number: int, text: str, confidence: float) -> None:
                kept.add(number, text, confidence)
                bar.update()

            report = examine_foreign(sure, args.foreign, photos, known=kept.known, on_question=on_question)
    return report.as_dict(), report.table()


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
    """Greedy answers of bundles and a checkpoint to other questions than the examination's."""
    import dataclasses

    from tqdm import tqdm

    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.evaluation.nano.exam import FIRST_COMPARISON_SEED, exam
    from mobilevlm_ros.export.quality.agreement import measure

    told = []
    for runtime in runtimes(args):
        questions = ((image, e.question) for image, e, _ in exam(args.count, FIRST_COMPARISON_SEED))
        with tqdm(total=args.count, desc="comparing", unit="question", disable=None) as bar:
            reference = load_runtime(args.compare, "torch", args.threads)
            outcome = measure(reference, runtime, questions, progress=lambda done: bar.update())
        told.append({"model": runtime.bundle.manifest.name, **dataclasses.asdict(outcome)})
        if args.json:
            continue
        print("| questions | equal answers | share | mean KL, nats | worst KL, nats |\n|---|---|---|---|---|")
        print(
            f"| {outcome.samples} | {outcome.equal} | {outcome.fraction:.1%} | {outcome.mean_kl:.1e} "
            f"| {outcome.worst_kl:.2f} |"
        )
        for number, question, wanted, given in outcome.different[: args.failures]:
            print(json.dumps({"number": number, "question": question, "float32": wanted, "bundle": given}))
    if args.json:
        print(json.dumps(told[0] if len(told) == 1 else {"models": told}))
    return 0
