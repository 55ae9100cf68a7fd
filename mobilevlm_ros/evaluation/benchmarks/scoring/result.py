# SPDX-License-Identifier: Apache-2.0
"""From answers files to one result that says what it covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.evaluation.benchmarks.scoring.answers import (
    Matched,
    check_models,
    match,
    objection,
    read_answers,
)
from mobilevlm_ros.evaluation.benchmarks.types import AnswerRow, Benchmark, Dataset, Score
from mobilevlm_ros.evaluation.statistics import interval


@dataclass(frozen=True)
class Result:
    """A score and what it covers.

    Attributes:
        benchmark: which.
        score: of the rows that fit; None where it was refused.
        matched: answers beside questions.
        model_id: as the answers say.
        refused: why there is no score; empty where there is one.
        partial: rows that do not fit were left out on request.
    """

    benchmark: Benchmark
    score: Score | None
    matched: Matched
    model_id: str
    refused: str
    partial: bool

    def as_dict(self, intervals: bool = True) -> dict[str, Any]:
        """For JSON: the official names of the figures, then what they cover. Refused figures are null."""
        counts = self.matched.counts()
        told: dict[str, Any] = {"benchmark": self.benchmark.name}
        if self.score is None:
            return {
                **told,
                **dict.fromkeys(self.benchmark.values),
                **counts,
                "scored": 0,
                "model_id": self.model_id,
                "partial": self.partial,
                "refused": self.refused,
            }
        known = self.score.values[self.benchmark.headline] is not None
        return {
            **told,
            **self.score.values,
            **counts,
            "scored": self.score.rows,
            "interval95": interval(self.score.metric) if intervals and known else None,
            "interval_of": self.benchmark.headline,
            "model_id": self.model_id,
            "partial": self.partial,
            "protocol": self.benchmark.protocol,
            "details": self.score.details,
        }

    def notes(self) -> list[str]:
        """What a reader of the figure must know, a sentence each."""
        counts = self.matched.counts()
        notes = []
        if self.score is not None and counts["missing"]:
            what = "are left out" if self.benchmark.missing == "refused" else "count as wrong"
            notes.append(
                f"{counts['missing']} of {counts['questions']} questions have no answer; they {what}"
            )
        if counts["foreign"]:
            notes.append(f"{counts['foreign']} rows answer no question of {self.benchmark.title}; ignored")
        if counts["repeated"]:
            notes.append(f"{counts['repeated']} questions are answered again; the last answer counts")
        if counts["ignored"]:
            notes.append(f"{counts['ignored']} rows answer questions that do not count; ignored")
        return notes


def score_rows(
    benchmark: Benchmark, dataset: Dataset, rows: Sequence[AnswerRow], model_id: str, partial: bool = False
) -> Result:
    """The score, or why it is refused. `partial` scores the rows that fit."""
    matched = match(benchmark, dataset, rows)
    refused = "" if partial else objection(benchmark, matched)
    score = None if refused else benchmark.score(matched.pairs)
    return Result(benchmark, score, matched, model_id, refused, partial)


def score_files(
    benchmark: Benchmark, dataset: Dataset, paths: Sequence[Path], partial: bool = False
) -> Result:
    """The same of answers files. Raises EvaluationError for malformed rows and for several models."""
    rows = read_answers(paths)
    return score_rows(benchmark, dataset, rows, check_models(rows, paths), partial)


def official_dict(benchmark: Benchmark, dataset: Dataset, paths: Sequence[Path]) -> dict[str, Any]:
    """What the official scorer prints for these files, and what it hides, for JSON."""
    rows = read_answers(paths)
    found = benchmark.official(dataset, rows)
    counts = match(benchmark, dataset, rows).counts()
    return {
        "benchmark": benchmark.name,
        **found.values,
        **counts,
        "official": True,
        "stops": found.error or None,
        "hides": list(found.hides),
    }
