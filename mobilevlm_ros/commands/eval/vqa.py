# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval vqa EXAM`: your own pictures and questions."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.eval.models import add_model_arguments, runtimes

if TYPE_CHECKING:
    from mobilevlm_ros.engine.runtime import Runtime
    from mobilevlm_ros.evaluation.exam.kept_answers import KeptAnswers
    from mobilevlm_ros.evaluation.exam.questions import ExamQuestion
    from mobilevlm_ros.evaluation.exam.score import Marked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "exam",
        type=Path,
        metavar="EXAM",
        help="JSON, JSON Lines or CSV: image, question, and answer, answers or choices with answer; id, tags",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where its pictures are (default: beside the file)"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep the answers in DIR/EXAM/MODEL as they come, so that the same command goes on where it was "
        "stopped, and write answers.jsonl, summary.json, failures.html and the diagrams there",
    )
    options.add_json(parser, "the result, as the last line,")


def main(args: argparse.Namespace) -> int:
    """The figures go to stdout, progress to stderr."""
    from mobilevlm_ros.evaluation.exam.kept_answers import KeptAnswers
    from mobilevlm_ros.evaluation.exam.questions import read_exam
    from mobilevlm_ros.evaluation.exam.score import summary
    from mobilevlm_ros.evaluation.runner.identity import model_identity

    questions = read_exam(args.exam, args.images)
    if args.out is not None:
        options.check_folder(args.out)
    results = []
    for runtime in runtimes(args):
        identity = model_identity(runtime)
        model_id = str(identity["model_id"])
        folder = None if args.out is None else args.out / args.exam.stem / model_id
        with ExitStack() as stack:
            kept = None
            if folder is not None:
                kept = stack.enter_context(KeptAnswers(folder, identity, questions))
            marked = _sit(runtime, questions, kept)
        told = {"exam": str(args.exam), "model_id": model_id, **summary(marked)}
        results.append(told)
        if folder is not None:
            _write(folder, told, marked)
        if not args.json:
            print(_table(told))
    if args.json:
        print(json.dumps(results[0] if len(results) == 1 else {"models": results}))
    return 0


def _sit(runtime: Runtime, questions: list[ExamQuestion], kept: KeptAnswers | None) -> list[Marked]:
    from tqdm import tqdm

    from mobilevlm_ros.evaluation.exam.score import sit
    from mobilevlm_ros.inference.assistant import Assistant

    known = kept.known if kept is not None else {}
    if known:
        print(f"going on: {len(known)} of {len(questions)} are answered", file=sys.stderr)
    with tqdm(total=len(questions), initial=len(known), desc="asking", unit="question", disable=None) as bar:

        def on_answer(done: list[Marked]) -> None:
            if kept is not None:
                kept.add(done[-1])
            bar.set_postfix(accuracy=f"{sum(m.credit for m in done) / len(done):.3f}", refresh=False)
            bar.update()

        return sit(Assistant(runtime, fast_preprocessing=False), questions, on_answer, known)


def _table(told: dict[str, Any]) -> str:
    low, high = told["interval95"] or (float("nan"), float("nan"))
    lines = [
        f"{told['model_id']}: {told['questions']} questions",
        f"accuracy         {told['accuracy']:.1f} %  (95 %: {low:.1f} to {high:.1f})",
    ]
    names = {"exact_match": "exact match", "vqa_accuracy": "VQA accuracy"}
    lines += [f"{text:<16} {told[name]:.1f} %" for name, text in names.items() if told[name] is not None]
    if told["choices"]:
        c = told["choices"]
        lines.append(
            f"choices          {c['accuracy']:.1f} % of {c['questions']}, mean confidence "
            f"{c['mean_confidence']:.1f} %, ECE {c['ece']:.3f}"
        )
    lines += [
        f"  {tag:<14} {part['accuracy']:.1f} % of {part['questions']}" for tag, part in told["tags"].items()
    ]
    return "\n".join(lines)


def _write(folder: Path, told: dict[str, Any], marked: list[Marked]) -> None:
    """Files of ours in a folder of the model; an earlier run's are replaced."""
    from mobilevlm_ros.evaluation import drawing
    from mobilevlm_ros.evaluation.calibration import reliability_plot
    from mobilevlm_ros.evaluation.exam.pages import abstention_plot, contact_sheet
    from mobilevlm_ros.evaluation.exam.score import scored
    from mobilevlm_ros.evaluation.runner.journal import write_whole
    from mobilevlm_ros.files.atomic import make_directory

    make_directory(folder)
    lines = [
        json.dumps(
            {
                "id": m.question.id,
                "row": m.question.row,
                "image": shown[0] if len(shown) == 1 else shown,
                "question": m.question.question,
                "expected": list(m.question.answers),
                "text": m.text,
                "credit": m.credit,
                "confidence": m.confidence,
                "probabilities": list(m.probabilities),
                "model_id": told["model_id"],
            }
        )
        for m, shown in ((m, [str(path) for path in m.question.images]) for m in marked)
    ]
    write_whole(folder / "answers.jsonl", "\n".join(lines) + "\n")
    write_whole(folder / "summary.json", json.dumps(told, indent=1) + "\n")
    write_whole(folder / "failures.html", contact_sheet(marked, told["model_id"]))
    drawing.save(abstention_plot(marked), folder / "abstention.png")
    chosen = scored(marked)
    if chosen:
        drawing.save(reliability_plot.draw([("choices", chosen)]), folder / "reliability.png")
