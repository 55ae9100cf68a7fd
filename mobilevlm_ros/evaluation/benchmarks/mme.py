# SPDX-License-Identifier: Apache-2.0
"""MME: two yes/no questions a picture. LLaVA's convert_answer_to_mme.py, then MME's calculation.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import entry, find, lines, only_once
from mobilevlm_ros.evaluation.benchmarks.types import (
    SHORT_ANSWER,
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
from mobilevlm_ros.files.small_file import regular

_LARGEST = 64 << 20  # bytes of the file

QUESTIONS = "llava_mme.jsonl"
RELEASE = "MME_Benchmark_release_version"
PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
TASKS = (*PERCEPTION, *COGNITION)
YES_OR_NO = " Please answer yes or no."


@dataclass(frozen=True)
class Truth:
    """'yes' or 'no', and the task."""

    label: str
    task: str


def load(folder: Path) -> Dataset:
    """Questions with the labels of the release's text files (both of its layouts)."""
    path = find(folder, QUESTIONS)
    release = folder / RELEASE if (folder / RELEASE).is_dir() else folder
    labels = {task: _labels(release / task) for task in TASKS}
    questions: list[Question] = []
    rows: dict[Any, int] = {}
    per_picture: dict[str, list[int]] = {}
    for row, line in lines(path):
        where = f"{path}, line {row}"
        question_id, text = entry(line, "question_id", str, where), entry(line, "text", str, where)
        image = entry(line, "image", str, where)
        task = question_id.split("/")[0]
        if task not in labels:
            raise EvaluationError(f"{where}: {task!r} is none of MME's 14 tasks")
        label = _label(labels[task], question_id, text)
        if label is None:
            raise EvaluationError(
                f"{where}: {release / task} has no label for {_file(question_id)}, {text.splitlines()[0]!r}"
            )
        key = (question_id, text)
        only_once(rows, key, row, path)
        rows[key] = row
        per_picture.setdefault(question_id, []).append(row)
        truth = Truth(label, task)
        questions.append(Question(row, key, question_id, Picture(release / image), text, text, 128, truth))
    for question_id, at in per_picture.items():
        if len(at) != 2:
            raise EvaluationError(
                f"{path}, line {at[0]}: picture {question_id} has {len(at)} questions; MME asks two each"
            )
    return Dataset(folder, questions)


def _labels(task: Path) -> dict[tuple[str, str], str]:
    """(text file's name, question) to 'yes' or 'no', of one task's folder."""
    folder = task / "questions_answers_YN" if (task / "questions_answers_YN").is_dir() else task
    if not folder.is_dir():
        raise EvaluationError(f"{task} is missing: MME has 14 tasks, each a folder with its text files")
    labels = {}
    for file in sorted(folder.glob("*.txt")):
        try:
            text = regular(file, _LARGEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{file} cannot be read: {error}") from error
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            question, _, answer = line.rpartition("\t")
            if answer.strip().lower() not in ("yes", "no"):
                raise EvaluationError(f"{file}, line {number}: {answer!r} is neither Yes nor No")
            labels[file.name, question] = answer.strip().lower()
    return labels


def _file(question_id: str) -> str:
    return question_id.split("/")[-1].split(".")[0] + ".txt"


def _label(labels: dict[tuple[str, str], str], question_id: str, prompt: str) -> str | None:
    """The instruction of the prompt is exchanged for MME's own, which one or two blanks precede."""
    asked = prompt.replace(SHORT_ANSWER.strip(), "").strip()
    if YES_OR_NO.strip() not in asked:
        asked += YES_OR_NO
    for text in (asked, asked.replace(YES_OR_NO, " " + YES_OR_NO)):
        if (_file(question_id), text) in labels:
            return labels[_file(question_id), text]
    return None


def parse(text: str) -> str:
    """'yes' anywhere in the first four characters, else 'no' there, else 'other'."""
    start = text.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def score(pairs: Sequence[tuple[Question, str | None]]) -> Score:
    """`perception` (at most 2000) and `cognition` (at most 800). Pictures with one answer are left out."""
    judged = []
    for question, text in pairs:
        if text is not None:
            parsed = parse(text)
            credit = float(parsed == question.truth.label)
            judged.append(Judged(question, text, parsed, credit, question.truth.task))
    per_picture: dict[Any, list[Judged]] = {}
    for j in judged:
        per_picture.setdefault(j.question.question_id, []).append(j)
    whole = {key: both for key, both in per_picture.items() if len(both) == 2}
    judged = [j for j in judged if j.question.question_id in whole]
    values, tasks = _totals([(task, [b for b in whole.values() if b[0].group == task]) for task in TASKS])
    return Score(
        values, {"tasks": tasks}, judged, summed_metric(list(_adds(whole)), _perception), len(judged)
    )


def _totals(
    tasks: Sequence[tuple[str, Sequence[Sequence[Judged]]]],
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Sums over the tasks of 100 x (accuracy + share of pictures with both right), in MME's order."""
    scores: dict[str, float | None] = {}
    for task, pictures in tasks:
        right = sum(j.credit for both in pictures for j in both)
        plus = sum(all(j.credit for j in both) for both in pictures)
        scores[task] = right / (2 * len(pictures)) * 100 + plus / len(pictures) * 100 if pictures else None
    totals = {}
    for name, part in (("perception", PERCEPTION), ("cognition", COGNITION)):
        found = [scores.get(task) for task in part]
        totals[name] = None if None in found else float(sum(v for v in found if v is not None))
    return totals, scores


def _adds(whole: dict[Any, list[Judged]]) -> Any:
    """Of each perception task: right answers, pictures with both right, pictures."""
    for key, both in whole.items():
        adds = [0.0] * (3 * len(PERCEPTION))
        if both[0].group in PERCEPTION:
            at = 3 * PERCEPTION.index(both[0].group)
            right = sum(j.credit for j in both)
            adds[at : at + 3] = [right, float(right == 2), 1.0]
        yield key, adds


def _perception(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    right, plus, pictures = (sums[..., k::3] for k in range(3))
    total: NDArray[np.float64] = (100 * (right / 2 + plus) / np.maximum(pictures, 1)).sum(-1)
    return total


def official(dataset: Dataset, rows: Sequence[AnswerRow]) -> OfficialScore:
    """Lines of a task are paired two by two in file order, whatever pictures they are about."""
    nothing: dict[str, float | None] = {"perception": None, "cognition": None}
    questions = {question.key: question for question in dataset.questions}
    per_task: dict[str, list[tuple[AnswerRow, Question]]] = {}
    for row in rows:
        question = questions.get((row.question_id, row.prompt))
        if question is None:
            error = f"KeyError: line {row.line} has no label ({row.question_id!r}, {row.prompt!r})"
            return OfficialScore(nothing, error)
        per_task.setdefault(question.truth.task, []).append((row, question))
    values, hides, error = dict(nothing), [], ""
    for name, part in (("perception", PERCEPTION), ("cognition", COGNITION)):
        pictures = []
        for task in part:
            given = per_task.get(task, [])
            error = error or _broken(task, given)
            pairs = [given[at : at + 2] for at in range(0, len(given) - 1, 2)]
            odd = sum(a[1].question_id != b[1].question_id for a, b in pairs)
            if odd:
                hides.append(f"{odd} pairs of '{task}' are answers about two pictures, taken as one")
            pictures.append((task, [[_judge(q, row.text) for row, q in pair] for pair in pairs]))
        if error:
            break
        values[name] = _totals(pictures)[0][name]
    return OfficialScore(values, error, hides)


def _broken(task: str, given: Sequence[tuple[AnswerRow, Question]]) -> str:
    """Why the calculation stops at this task."""
    for row, _ in given:
        if "\n" in row.text or "\t" in row.text:
            return f"it stops at '{task}': the answer of line {row.line} has several lines or a tab"
    if not given or len(given) % 2:
        return f"AssertionError: it stops at '{task}', which has {len(given)} answers"
    return ""


def _judge(question: Question, text: str) -> Judged:
    parsed = parse(text)
    return Judged(question, text, parsed, float(parsed == question.truth.label), question.truth.task)


MME = Benchmark(
    name="mme",
    title="MME",
    headline="perception",
    values=("perception", "cognition"),
    files=((QUESTIONS,), (RELEASE, *PERCEPTION[:1])),
    images=(RELEASE,),
    load=load,
    answer_key=lambda row: (row.question_id, row.prompt),
    score=score,
    official=official,
    protocol="perception; the papers' averages take it divided by 20",
    size=2374,
)
