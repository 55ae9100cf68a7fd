# SPDX-License-Identifier: Apache-2.0
"""TextVQA, validation 0.5.1 with OCR tokens in the prompt: scored as LLaVA's eval_textvqa.py does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import document, entry, find, lines, only_once
from mobilevlm_ros.evaluation.benchmarks.scoring.vqa_accuracy import normalize, soft_scores
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
from mobilevlm_ros.files.kinds import TEXTS

QUESTIONS = "llava_textvqa_val_v051_ocr.jsonl"
ANNOTATIONS = "TextVQA_0.5.1_val.json"
OCR_LINE = "Reference OCR token: "


@dataclass(frozen=True)
class Truth:
    """The ten people's answers."""

    answers: tuple[str, ...]


def load(folder: Path) -> Dataset:
    """Questions with ten answers each, found by picture id and the question in lower case."""
    path, file = find(folder, QUESTIONS), find(folder, ANNOTATIONS)
    answers: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, item in enumerate(entry(document(file), "data", list, str(file)), 1):
        where = f"{file}, entry {number}"
        texts = entry(item, "answers", list, where)
        if not texts or not TEXTS.fits(texts):
            raise EvaluationError(f"{where}: 'answers' must be texts, at least one: use {ANNOTATIONS}")
        key = (entry(item, "image_id", str, where), entry(item, "question", str, where).lower())
        answers[key] = tuple(texts)
    questions: list[Question] = []
    rows: dict[Any, int] = {}
    for row, line in lines(path):
        where = f"{path}, line {row}"
        image_id, text = entry(line, "question_id", str, where), entry(line, "text", str, where)
        image = entry(line, "image", str, where)
        asked = question_of(text)
        if asked is None:
            raise EvaluationError(
                f"{where}: the text has {text.count(chr(10)) + 1} lines; expected the question, perhaps a "
                f"line {OCR_LINE!r}, and the instruction: use {QUESTIONS}"
            )
        key = (image_id, asked)
        if key not in answers:
            raise EvaluationError(f"{where}: {file.name} has no question {asked!r} about picture {image_id}")
        only_once(rows, key, row, path)
        rows[key] = row
        picture = Picture(folder / "train_images" / image)
        questions.append(Question(row, key, image_id, picture, text, text, 128, Truth(answers[key])))
    return Dataset(folder, questions)


def question_of(prompt: str) -> str | None:
    """The question in lower case as the scorer finds it in a saved prompt; None where it would stop."""
    parts = prompt.split("\n")
    if (len(parts) == 3 and OCR_LINE in parts[1]) or len(parts) == 2:
        return parts[0].lower()
    return None


def score(pairs: Sequence[tuple[Question, str | None]]) -> Score:
    """`accuracy`: mean soft accuracy in percent."""
    judged = []
    for question, text in pairs:
        if text is not None:
            parsed = normalize(text)
            judged.append(
                Judged(question, text, parsed, soft_scores(question.truth.answers).get(parsed, 0.0))
            )
    values = {"accuracy": 100.0 * sum(j.credit for j in judged) / len(judged) if judged else None}
    return Score(values, {"samples": len(judged)}, judged, mean_metric(judged, picture_unit), len(judged))


def official(dataset: Dataset, rows: Sequence[AnswerRow]) -> OfficialScore:
    """The mean over the rows that are there, repeated ones counting each time."""
    questions = {question.key: question for question in dataset.questions}
    pairs = []
    for row in rows:
        question = questions.get(_key(row))
        if question is None:
            why = "asks no known question" if question_of(row.prompt) else "has a prompt of another form"
            return OfficialScore({"accuracy": None}, f"it stops: line {row.line} {why}")
        pairs.append((question, row.text))
    hides = []
    missing = len(questions) - len({question.key for question, _ in pairs})
    if missing:
        hides.append(f"{missing} missing answers are left out of the mean")
    if len(pairs) + missing > len(questions):
        hides.append(f"{len(pairs) + missing - len(questions)} repeated answers count each time")
    if not pairs:
        return OfficialScore({"accuracy": None}, "ZeroDivisionError: the file has no rows", hides)
    return OfficialScore(score(pairs).values, "", hides)


def _key(row: AnswerRow) -> tuple[str, str | None]:
    return (str(row.question_id), question_of(row.prompt))


TEXTVQA = Benchmark(
    name="textvqa",
    title="TextVQA",
    headline="accuracy",
    values=("accuracy",),
    files=((QUESTIONS,), (ANNOTATIONS,)),
    images=("train_images",),
    load=load,
    answer_key=_key,
    score=score,
    official=official,
    protocol="validation set with reference OCR tokens in the prompt, as LLaVA and MobileVLM report it",
    size=5000,
)
