# SPDX-License-Identifier: Apache-2.0
"""Nano's examinations as benchmarks of the runner: questions about drawn pictures, marked by family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
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
from mobilevlm_ros.simulation.questions import QAPair

MAX_TOKENS = 128
"""Longest answer; the longest true one, a description of three things, takes fewer than 40."""


@dataclass(frozen=True)
class Truth:
    """The question with its right answer, and the seed of what the pictures show."""

    exchange: QAPair
    seed: int


def dataset(asked: Iterable[tuple[QAPair, Sequence[Picture], int]]) -> Dataset:
    """Questions for the runner, of (exchange, pictures in order, seed)."""
    questions = []
    for row, (exchange, pictures, seed) in enumerate(asked, 1):
        text = exchange.question
        *earlier, latest = pictures
        truth = Truth(exchange, seed)
        questions.append(
            Question(row, row, row, latest, text, text, MAX_TOKENS, truth, earlier=tuple(earlier))
        )
    return Dataset(Path(), questions)


def nano_benchmark(
    name: str, title: str, families: Sequence[str], agrees: Callable[[QAPair, str], bool]
) -> Benchmark:
    """A benchmark whose score is the share of answers that agree with the truth, in percent."""

    def score(pairs: Sequence[tuple[Question, str | None]]) -> Score:
        judged = []
        for question, text in pairs:
            exchange = question.truth.exchange
            right = text is not None and agrees(exchange, text)
            judged.append(Judged(question, text or "", exchange.truth, float(right), exchange.family))
        accuracy = 100 * sum(j.credit for j in judged) / len(judged) if judged else None
        details = {"families": _by_family(judged, families), "failures": _failures(judged)}
        return Score({"accuracy": accuracy}, details, judged, mean_metric(judged, picture_unit), len(judged))

    def load(folder: Path) -> Dataset:
        raise EvaluationError(f"{title} is drawn and in no folder: mobilevlm eval nano")

    return Benchmark(
        name,
        title,
        headline="accuracy",
        values=("accuracy",),
        files=(),
        images=(),
        load=load,
        answer_key=_key,
        score=score,
        official=lambda dataset, rows: OfficialScore({}, f"{title} has no official scorer"),
        protocol="scenes drawn from seeds that no training has seen, equally many questions of each family",
    )


def table(details: Mapping[str, Any]) -> str:
    """A score's details as a Markdown table, with a total."""
    families = details["families"]
    lines = ["| family | right | asked | accuracy |", "|---|---|---|---|"]
    for family, marks in families.items():
        share = marks["right"] / marks["asked"]
        lines.append(f"| {family} | {marks['right']} | {marks['asked']} | {share:.1%} |")
    right, asked = (sum(marks[key] for marks in families.values()) for key in ("right", "asked"))
    lines.append(f"| **all** | {right} | {asked} | **{right / max(1, asked):.1%}** |")
    return "\n".join(lines)


def _by_family(judged: Sequence[Judged], families: Sequence[str]) -> dict[str, dict[str, int]]:
    marks = {}
    for family in families:
        credits = [j.credit for j in judged if j.group == family]
        if credits:
            marks[family] = {"right": round(sum(credits)), "asked": len(credits)}
    return marks


def _failures(judged: Sequence[Judged]) -> list[dict[str, str | int]]:
    return [
        {
            "seed": j.question.truth.seed,
            "family": j.group,
            "question": j.question.prompt,
            "truth": j.parsed,
            "answer": j.text,
        }
        for j in judged
        if not j.credit
    ]


def _key(row: AnswerRow) -> int | None:
    return row.question_id if isinstance(row.question_id, int) else None
