# SPDX-License-Identifier: Apache-2.0
"""GQA, test-dev balanced: LLaVA's convert_gqa_for_eval.py, then exact equality as in Stanford's eval.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import document, entry, find, lines, only_once
from mobilevlm_ros.evaluation.benchmarks.types import (
    AnswerRow,
    Benchmark,
    Dataset,
    Judged,
    OfficialScore,
    Picture,
    Question,
    Score,
    mean_metric,
    picture_unit,
)
from mobilevlm_ros.files.kinds import OBJECT

QUESTIONS = "llava_gqa_testdev_balanced.jsonl"
ANNOTATIONS = ("testdev_balanced_questions.json", "data/testdev_balanced_questions.json")


@dataclass(frozen=True)
class Truth:
    """The one right answer, and the question's kinds as GQA names them."""

    answer: str
    structural: str
    semantic: str
    steps: int
    words: int


def load(folder: Path) -> Dataset:
    """Every balanced question of the annotation file, in the question file's order."""
    path, file = find(folder, QUESTIONS), find(folder, *ANNOTATIONS)
    annotations = document(file)
    if not OBJECT.fits(annotations):
        raise EvaluationError(f"{file} holds no object of questions: use GQA's {ANNOTATIONS[0]}")
    images = next((folder / n for n in ("images", "data/images") if (folder / n).is_dir()), folder / "images")
    truths = {key: _truth(value, f"{file}, question {key}") for key, value in annotations.items()}
    questions: list[Question] = []
    rows: dict[Any, int] = {}
    for row, line in lines(path):
        where = f"{path}, line {row}"
        question_id = entry(line, "question_id", (str, int), where)
        key = str(question_id)
        image, text = entry(line, "image", str, where), entry(line, "text", str, where)
        only_once(rows, key, row, path)
        rows[key] = row
        if key not in truths:
            raise EvaluationError(
                f"{where}: question {key} is not in {file.name}: the two files are of different splits"
            )
        truth = truths[key]
        if truth is not None:
            questions.append(Question(row, key, question_id, Picture(images / image), text, text, 128, truth))
    asked = {question.key for question in questions}
    lacking = [key for key, truth in truths.items() if truth is not None and key not in asked]
    if lacking:
        raise EvaluationError(
            f"{path} does not ask {len(lacking)} balanced questions of {file.name} (first: {lacking[0]}): "
            "the two files are of different splits"
        )
    return Dataset(folder, questions, frozenset(key for key, truth in truths.items() if truth is None))


def _truth(value: Any, where: str) -> Truth | None:
    """None for a question outside the balanced set."""
    if not entry(value, "isBalanced", bool, where):
        return None
    types = entry(value, "types", dict, where)
    return Truth(
        entry(value, "answer", str, where),
        entry(types, "structural", str, where),
        entry(types, "semantic", str, where),
        _steps(value.get("semantic") or ()),
        len(entry(value, "question", str, where).split()),
    )


def _steps(program: Sequence[Any]) -> int:
    """Reasoning steps as GQA's eval.py counts them: all but those that only say what was found."""
    said = [f"{step.get('operation')}: {step.get('argument')}" for step in program if isinstance(step, dict)]
    return sum(not any(word in text for word in ("exist", "query: name", "choose name")) for text in said)


def parse(text: str) -> str:
    """Without final full stops, in lower case; blanks are kept."""
    return text.rstrip(".").lower()


def score(pairs: Sequence[tuple[Question, str | None]]) -> Score:
    """`accuracy` in percent; `binary` is every structural type but 'query', `open` is that."""
    judged = []
    for question, text in pairs:
        if text is not None:
            parsed = parse(text)
            truth = question.truth
            judged.append(Judged(question, text, parsed, float(parsed == truth.answer), truth.structural))
    values = {
        "accuracy": _percent(judged),
        "binary": _percent([j for j in judged if j.group != "query"]),
        "open": _percent([j for j in judged if j.group == "query"]),
    }
    details = {
        name: {
            str(kind): [_percent(part), len(part)]
            for kind in sorted({getattr(j.question.truth, name) for j in judged})
            if (part := [j for j in judged if getattr(j.question.truth, name) == kind])
        }
        for name in ("structural", "semantic", "steps", "words")
    }
    return Score(values, details, judged, mean_metric(judged, picture_unit), len(judged))


def _percent(judged: Sequence[Judged]) -> float | None:
    return sum(j.credit for j in judged) / len(judged) * 100 if judged else None


def official(dataset: Dataset, rows: Sequence[AnswerRow]) -> OfficialScore:
    """The last of repeated answers counts, unknown ids are ignored, a missing one stops it."""
    last = {str(row.question_id): row.text for row in rows}
    known = {question.key for question in dataset.questions} | dataset.ignored
    hides = []
    foreign = sum(str(row.question_id) not in known for row in rows)
    if foreign:
        hides.append(f"{foreign} answers to unknown questions are ignored")
    if len(last) < len(rows):
        hides.append(f"{len(rows) - len(last)} answers are overwritten by a later one to the same question")
    missing = [question for question in dataset.questions if question.key not in last]
    if missing:
        error = f"Exception: missing predictions (question {missing[0].question_id})"
        return OfficialScore(dict.fromkeys(("accuracy", "binary", "open")), error, hides)
    return OfficialScore(score([(q, last[str(q.key)]) for q in dataset.questions]).values, "", hides)


GQA = Benchmark(
    name="gqa",
    title="GQA",
    headline="accuracy",
    values=("accuracy", "binary", "open"),
    files=((QUESTIONS,), ANNOTATIONS),
    images=("images", "data/images"),
    load=load,
    answer_key=lambda row: str(row.question_id),
    score=score,
    official=official,
    protocol="test-dev balanced, exact equality",
    size=12578,
)
