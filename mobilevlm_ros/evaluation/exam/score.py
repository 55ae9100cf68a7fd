# SPDX-License-Identifier: Apache-2.0
"""Sits an exam and scores it: right or wrong, calibrated or not, and what abstaining would be worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilevlm_ros.errors import EvaluationError, MobileVLMError
from mobilevlm_ros.evaluation.benchmarks.scoring.vqa_accuracy import normalize, soft_scores
from mobilevlm_ros.evaluation.calibration.temperature import ScoredAnswer, quality
from mobilevlm_ros.evaluation.exam.questions import ExamQuestion
from mobilevlm_ros.evaluation.statistics import Metric, interval
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.processing.image_file import read_picture

PEOPLE = 3
"""Answers of so many people make a soft accuracy (min(1, agreeing / 3)); fewer, an exact match."""


@dataclass(frozen=True)
class Marked:
    """A question with its answer.

    Attributes:
        credit: 0 to 1: exact match, or soft accuracy where PEOPLE or more answered.
        exact: the normalised answer is one of the accepted ones.
        confidence: 0 to 1, of the least sure token, or of the choice.
        probabilities: of the choices, in their order.
    """

    question: ExamQuestion
    text: str
    credit: float
    exact: bool
    confidence: float
    probabilities: tuple[float, ...]


def sit(
    assistant: Assistant,
    questions: Sequence[ExamQuestion],
    on_answer: Callable[[list[Marked]], object] = lambda done: None,
    known: Mapping[int, Marked] | None = None,
) -> list[Marked]:
    """Answers in the file's order; questions about the same pictures in a row, so that they are read once.

    `known` holds those of an earlier sitting, by row: they are not asked again. `on_answer` gets all that
    there are after each new one, which comes last. Raises EvaluationError that names the row whose picture
    or question cannot be used.
    """
    done = list((known or {}).values())
    order = sorted(range(len(questions)), key=lambda i: (questions[i].images, i))
    frames: list[Frame] = []
    shown = None
    for i in order:
        question = questions[i]
        if known and question.row in known:
            continue
        try:
            if shown != question.images:
                frames, shown = [Frame(read_picture(path)) for path in question.images], question.images
            answer = assistant.ask(frames, Request(question.question, choices=question.choices))
        except MobileVLMError as error:
            raise EvaluationError(f"row {question.row}: {error}") from error
        done.append(marked(question, answer.text, answer.confidence, tuple(answer.choice_probabilities)))
        on_answer(done)
    return sorted(done, key=lambda m: m.question.row)


def marked(question: ExamQuestion, text: str, confidence: float, probabilities: tuple[float, ...]) -> Marked:
    """An answer with its marks."""
    exact, credit = mark(question, text)
    return Marked(question, text, credit, exact, confidence, probabilities)


def mark(question: ExamQuestion, text: str) -> tuple[bool, float]:
    """(exact match, credit) of an answer, after the normaliser of VQA."""
    if question.choices:
        right = text == question.answers[0]
        return right, float(right)
    given = normalize(text)
    exact = given in {normalize(answer) for answer in question.answers}
    if len(question.answers) >= PEOPLE:
        return exact, soft_scores(question.answers).get(given, 0.0)
    return exact, float(exact)


def metric(answers: Sequence[Marked]) -> Metric:
    """Mean credit in percent, resampled by picture."""
    units: dict[str, list[float]] = {}
    for m in answers:
        sums = units.setdefault("|".join(map(str, m.question.images)), [0.0, 0.0])
        sums[0] += m.credit
        sums[1] += 1
    return Metric(
        np.array(list(units.values()), np.float64).reshape(-1, 2),
        lambda s: 100 * s[..., 0] / np.maximum(s[..., 1], 1),
        tuple(units),
    )


def abstention_curve(answers: Sequence[Marked]) -> list[tuple[float, float, float]]:
    """(threshold, coverage, accuracy): what is answered, and how much of it is right, at each threshold.

    Answers less sure than the threshold are withheld, as by a request's abstain_threshold; the curve goes
    from answering everything to answering only the surest. Equal confidences go together.
    """
    order = sorted(answers, key=lambda m: -m.confidence)
    curve, credit = [], 0.0
    for count, m in enumerate(order, 1):
        credit += m.credit
        if count == len(order) or order[count].confidence < m.confidence:
            curve.append((m.confidence, count / len(order), credit / count))
    return curve[::-1]


def summary(answers: Sequence[Marked]) -> dict[str, Any]:
    """For JSON: scores in percent with a 95 % interval, calibration, coverage, and the tags."""
    free = [m for m in answers if not m.question.choices]
    soft = [m for m in free if len(m.question.answers) >= PEOPLE]
    chosen = [m for m in answers if m.question.choices]
    curve = abstention_curve(answers)
    told: dict[str, Any] = {
        "questions": len(answers),
        "accuracy": _percent(answers),
        "interval95": interval(metric(answers)),
        "exact_match": _mean([float(m.exact) for m in free]),
        "vqa_accuracy": _percent(soft),
        "choices": None,
        # Of everything answered down to each threshold, mean of the errors: lower is better, 0 at best.
        "area_under_risk_coverage": float(np.mean([1 - accuracy for _, _, accuracy in curve])),
        "tags": {},
    }
    if chosen:
        found = quality(scored(chosen))
        told["choices"] = {
            "questions": found.questions,
            "accuracy": 100 * found.accuracy,
            "mean_confidence": 100 * found.confidence,
            "ece": found.ece,
            "brier": found.brier,
        }
    for tag in sorted({tag for m in answers for tag in m.question.tags}):
        part = [m for m in answers if tag in m.question.tags]
        told["tags"][tag] = {"questions": len(part), "accuracy": _percent(part)}
    return told


def scored(answers: Sequence[Marked]) -> list[ScoredAnswer]:
    """Those with choices, for reliability diagrams."""
    return [
        ScoredAnswer(m.probabilities, m.question.choices.index(m.question.answers[0]))
        for m in answers
        if m.question.choices
    ]


def _percent(answers: Sequence[Marked]) -> float | None:
    return _mean([m.credit for m in answers])


def _mean(values: Sequence[float]) -> float | None:
    return 100 * sum(values) / len(values) if values else None
