# SPDX-License-Identifier: Apache-2.0
"""POPE: is an object there? Read and scored as LLaVA's eval_pope.py does (c121f04)."""

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
    AnswerRow,
    Benchmark,
    Dataset,
    Judged,
    OfficialScore,
    Picture,
    Question,
    Score,
    picture_unit,
    summed_metric,
)

QUESTIONS = "llava_pope_test.jsonl"
CATEGORIES = ("adversarial", "popular", "random")
ANNOTATIONS = "AoiDragon/POPE, commit e3e39262"


@dataclass(frozen=True)
class Truth:
    """'yes' or 'no', and which of the three sets the question is of."""

    label: str
    category: str


def load(folder: Path) -> Dataset:
    """Questions with their labels.

    The official scorer pairs questions and annotation lines by position and never looks at the words. Here
    picture and words must agree as well, so that a newer annotation file is refused and not scored.
    """
    path = find(folder, QUESTIONS)
    images = folder / "val2014"
    annotations = {name: _annotations(folder, name) for name in CATEGORIES}
    at = dict.fromkeys(CATEGORIES, 0)
    questions: list[Question] = []
    rows: dict[Any, int] = {}
    for row, line in lines(path):
        where = f"{path}, line {row}"
        question_id = entry(line, "question_id", (str, int), where)
        image, text = entry(line, "image", str, where), entry(line, "text", str, where)
        category = entry(line, "category", str, where)
        if category not in annotations:
            raise EvaluationError(f"{where}: category {category!r} is none of {', '.join(CATEGORIES)}")
        only_once(rows, str(question_id), row, path)
        rows[str(question_id)] = row
        label = _label(annotations[category], at[category], image, text, where, category)
        at[category] += 1
        truth = Truth(label, category)
        questions.append(
            Question(row, str(question_id), question_id, Picture(images / image), text, text, 128, truth)
        )
    for name, found in annotations.items():
        if len(found) != at[name]:
            raise EvaluationError(
                f"{folder}/coco/coco_pope_{name}.json has {len(found)} lines, and {QUESTIONS} asks "
                f"{at[name]} questions of that set: it is another version; use {ANNOTATIONS}"
            )
    return Dataset(folder, questions)


def _annotations(folder: Path, name: str) -> list[tuple[int, dict[str, Any]]]:
    return list(lines(find(folder, f"coco/coco_pope_{name}.json", f"coco_pope_{name}.json")))


def _label(
    annotations: list[tuple[int, dict[str, Any]]], at: int, image: str, text: str, where: str, category: str
) -> str:
    file = f"coco_pope_{category}.json"
    if at >= len(annotations):
        raise EvaluationError(f"{where}: {file} has only {len(annotations)} lines; use {ANNOTATIONS}")
    number, line = annotations[at]
    place = f"{file}, line {number}"
    asked, shown = entry(line, "text", str, place), entry(line, "image", str, place)
    if shown != image or text.split("\n")[0].split() != asked.split():
        raise EvaluationError(
            f"{place} is about {shown} ({asked!r}), and {where} about {image} ({text.splitlines()[0]!r}): "
            f"the annotation file is another version than the questions; use {ANNOTATIONS}"
        )
    label = entry(line, "label", str, place)
    if label not in ("yes", "no"):
        raise EvaluationError(f"{place}: label {label!r} is neither 'yes' nor 'no'")
    return label


def parse(text: str) -> str:
    """'no' if the first sentence has the word No, not or no; else 'yes'. Only exact words count."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def score(pairs: Sequence[tuple[Question, str | None]]) -> Score:
    """`mean_f1_x100`: the mean of the three sets' F1, the single figure that is published."""
    judged = []
    for question, text in pairs:
        if text is not None:
            parsed = parse(text)
            credit = float(parsed == question.truth.label)
            judged.append(Judged(question, text, parsed, credit, question.truth.category))
    tables = {
        name: _table([(j.parsed, j.question.truth.label) for j in judged if j.group == name])
        for name in CATEGORIES
    }
    f1 = [table.get("f1") for table in tables.values()]
    known = [value for value in f1 if value is not None]
    mean = sum(known) / len(known) * 100 if len(known) == len(CATEGORIES) else None
    rows = [(picture_unit(j), _adds(j)) for j in judged]
    return Score(
        {"mean_f1_x100": mean}, {"categories": tables}, judged, summed_metric(rows, _mean_f1), len(judged)
    )


def _table(pairs: Sequence[tuple[str, str]]) -> dict[str, float | int | None]:
    """Counts and ratios of one set; yes is positive. None for a ratio of nothing."""
    tp, fp, tn, fn = (
        sum((parsed, label) == kind for parsed, label in pairs)
        for kind in (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))
    )
    total = tp + fp + tn + fn
    if not total:
        return {"samples": 0}
    precision = tp / (tp + fp) if tp + fp else None
    recall = tp / (tp + fn) if tp + fn else None
    f1 = 2 * precision * recall / (precision + recall) if precision and recall else None
    if f1 is None and (precision == 0.0 or recall == 0.0):
        f1 = 0.0
    return {
        "samples": total,
        "TP": tp,
        "FP": fp,
        "TN": tn,
        "FN": fn,
        "accuracy": (tp + tn) / total,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "yes_ratio": (tp + fp) / total,
    }


def _adds(judged: Judged) -> list[float]:
    """Of each set TP, FP, FN."""
    adds = [0.0] * 9
    outcome = {("yes", "yes"): 0, ("yes", "no"): 1, ("no", "yes"): 2}.get(
        (judged.parsed, judged.question.truth.label)
    )
    if outcome is not None:
        adds[3 * CATEGORIES.index(judged.group) + outcome] = 1.0
    return adds


def _mean_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    tp, fp, fn = (sums[..., k::3] for k in range(3))
    f1: NDArray[np.float64] = (2 * tp / np.maximum(2 * tp + fp + fn, 1)).mean(-1) * 100
    return f1


def official(dataset: Dataset, rows: Sequence[AnswerRow]) -> OfficialScore:
    """Answers paired with annotation lines by position, whatever they answer."""
    categories = {question.key: question.truth.category for question in dataset.questions}
    labels = {
        name: [q.truth.label for q in dataset.questions if q.truth.category == name] for name in CATEGORIES
    }
    hides = []
    unknown = next((row for row in rows if str(row.question_id) not in categories), None)
    if unknown is not None:
        error = f"KeyError: line {unknown.line} has the unknown question_id {unknown.question_id!r}"
        return OfficialScore({"mean_f1_x100": None}, error)
    tables = {}
    for name in CATEGORIES:
        given = [row for row in rows if categories[str(row.question_id)] == name]
        if len(given) != len(labels[name]):
            hides.append(
                f"{len(given)} answers are paired by position with {len(labels[name])} labels of '{name}'"
            )
        wanted = [q.key for q in dataset.questions if q.truth.category == name]
        shifted = sum(str(row.question_id) != key for row, key in zip(given, wanted))
        if shifted:
            hides.append(f"{shifted} answers of '{name}' are compared with another question's label")
        tables[name] = _table([(parse(row.text), label) for row, label in zip(given, labels[name])])
    f1 = [table.get("f1") for table in tables.values()]
    stops = [
        name for name, t in tables.items() if not t.get("precision") and not t.get("recall")
    ]  # its divisions have no guard
    if stops or any(value is None for value in f1):
        error = f"ZeroDivisionError: division by zero in '{stops[0] if stops else 'precision'}'"
        return OfficialScore({"mean_f1_x100": None}, error, hides)
    return OfficialScore({"mean_f1_x100": sum(v for v in f1 if v is not None) / len(f1) * 100}, "", hides)


POPE = Benchmark(
    name="pope",
    title="POPE",
    headline="mean_f1_x100",
    values=("mean_f1_x100",),
    files=((QUESTIONS,), *((f"coco/coco_pope_{n}.json", f"coco_pope_{n}.json") for n in CATEGORIES)),
    images=("val2014",),
    load=load,
    answer_key=lambda row: str(row.question_id),
    score=score,
    official=official,
    protocol="mean of the F1 of adversarial, popular and random (not pooled)",
    size=8910,
)
