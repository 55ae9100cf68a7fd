# SPDX-License-Identifier: Apache-2.0
"""ScienceQA, test split: asked as model_vqa_science.py does, scored as LLaVA's eval_science_qa.py does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import document, entry, find, only_once
from mobilevlm_ros.evaluation.benchmarks.types import (
    LETTER,
    AnswerRow,
    Benchmark,
    Dataset,
    Judged,
    OfficialScore,
    Picture,
    Question,
    Score,
    summed_metric,
)
from mobilevlm_ros.files.kinds import LIST
from mobilevlm_ros.processing.prompt_template import IMAGE_PLACEHOLDER

QUESTIONS = "llava_test_CQM-A.json"
OPTIONS = "ABCDE"
FAILED = "FAILED"


@dataclass(frozen=True)
class Truth:
    """Index of the right choice, and how many there are."""

    answer: int
    choices: int


def load(folder: Path) -> Dataset:
    """Every problem of the test split."""
    path = find(folder, QUESTIONS)
    problems, splits = document(find(folder, "problems.json")), document(find(folder, "pid_splits.json"))
    test = entry(splits, "test", list, f"{folder}/pid_splits.json")
    listed = document(path)
    if not LIST.fits(listed):
        raise EvaluationError(f"{path} holds no list of questions: use LLaVA's {QUESTIONS}")
    questions: list[Question] = []
    rows: dict[Any, int] = {}
    for row, line in enumerate(listed, 1):
        where = f"{path}, entry {row}"
        key = str(entry(line, "id", (str, int), where))
        only_once(rows, key, row, path)
        rows[key] = row
        if key not in problems:
            raise EvaluationError(f"{where}: problem {key} is not in problems.json: they do not go together")
        problem, place = problems[key], f"{folder}/problems.json, problem {key}"
        truth = Truth(entry(problem, "answer", int, place), len(entry(problem, "choices", list, place)))
        turn = entry(entry(line, "conversations", list, where), 0, dict, where)
        text = entry(turn, "value", str, where).replace(IMAGE_PLACEHOLDER, "").strip() + LETTER
        picture, saved = None, text
        if "image" in line:
            image = entry(line, "image", str, where)
            picture, saved = Picture(folder / "images" / "test" / image, crop=True), f"<image>\n{text}"
        questions.append(Question(row, key, line["id"], picture, text, saved, 1024, truth))
    lacking = [pid for pid in test if str(pid) not in rows]
    if lacking or len(rows) != len(test):
        first = f" (first: {lacking[0]})" if lacking else ""
        raise EvaluationError(
            f"{path} has {len(rows)} questions and the test split {len(test)}; {len(lacking)} of the split "
            f"are not asked{first}: the files are of different versions"
        )
    return Dataset(folder, questions)


def parse(text: str) -> str:
    """The letter that an answer gives: alone, before '. ', or in one 'The answer is X.'; else FAILED."""
    if len(text) == 1 and text in OPTIONS:
        return text
    if len(text) >= 3 and text[0] in OPTIONS and text[1:3] == ". ":
        return text[0]
    said = re.findall(r"The answer is ([A-Z]).", text)  # any character may follow, as in the original
    return said[0] if len(said) == 1 else FAILED


def _right(parsed: str, truth: Truth) -> bool:
    return parsed in OPTIONS[: truth.choices] and OPTIONS.index(parsed) == truth.answer


def score(pairs: Sequence[tuple[Question, str | None]]) -> Score:
    """`accuracy` over all questions, a missing answer being wrong; `img_accuracy` over answered ones with a
    picture."""
    judged = []
    for question, text in pairs:
        parsed = FAILED if text is None else parse(text)
        right = text is not None and _right(parsed, question.truth)
        group = "text" if question.picture is None else "image" if text is not None else "image, missing"
        judged.append(Judged(question, text or "", parsed, float(right), group))
    shown = [j for j in judged if j.group == "image"]
    values = {"accuracy": _percent(judged), "img_accuracy": _percent(shown)}
    details = {
        "total": len(judged),
        "correct": int(sum(j.credit for j in judged)),
        "img_total": len(shown),
        "img_correct": int(sum(j.credit for j in shown)),
        "img_missing": sum(j.group == "image, missing" for j in judged),
        "not_understood": sum(j.parsed == FAILED and j.text != "" for j in judged),
    }
    metric = summed_metric(
        [(j.question.key, (j.credit, 1.0) if j.group == "image" else (0.0, 0.0)) for j in judged],
        lambda s: 100 * s[..., 0] / s[..., 1].clip(1),
    )
    return Score(values, details, judged, metric, sum(text is not None for _, text in pairs))


def _percent(judged: Sequence[Judged]) -> float | None:
    return sum(j.credit for j in judged) / len(judged) * 100 if judged else None


def official(dataset: Dataset, rows: Sequence[AnswerRow]) -> OfficialScore:
    """A missing answer is wrong in `accuracy` and does not exist in `img_accuracy`, where the saved prompt
    says whether there was a picture."""
    last = {str(row.question_id): row for row in rows}
    known = {str(question.key) for question in dataset.questions}
    hides = []
    missing = len(known - set(last))
    if missing:
        hides.append(f"{missing} missing answers are wrong in accuracy, and left out of img_accuracy")
    foreign = sum(str(row.question_id) not in known for row in rows)
    if foreign:
        hides.append(f"{foreign} answers to unknown questions are ignored")
    if len(last) < len(rows):
        hides.append(f"{len(rows) - len(last)} answers are overwritten by a later one to the same question")
    judged = score([(q, last[q.key].text if q.key in last else None) for q in dataset.questions]).judged
    shown = [
        j for j in judged if j.question.key in last and IMAGE_PLACEHOLDER in last[str(j.question.key)].prompt
    ]
    values = {"accuracy": _percent(judged), "img_accuracy": _percent(shown)}
    error = "" if shown else "ZeroDivisionError: no answer has a picture in its prompt"
    return OfficialScore(values, error, hides)


SQA = Benchmark(
    name="sqa",
    title="ScienceQA",
    headline="img_accuracy",
    values=("accuracy", "img_accuracy"),
    files=((QUESTIONS,), ("problems.json",), ("pid_splits.json",)),
    images=("images/test",),
    load=load,
    answer_key=lambda row: str(row.question_id),
    score=score,
    official=official,
    missing="wrong",
    protocol="test split, letter by rule; img_accuracy (SQA-I) is the published figure",
    size=4241,
)
