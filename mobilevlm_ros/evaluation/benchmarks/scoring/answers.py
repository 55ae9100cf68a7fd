# SPDX-License-Identifier: Apache-2.0
"""Reads answers files and finds each answer's question; what does not fit is refused or counted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import entry, lines
from mobilevlm_ros.evaluation.benchmarks.types import AnswerRow, Benchmark, Dataset, Question

_NAMED = 5


@dataclass(frozen=True)
class Matched:
    """Answers beside their questions.

    Attributes:
        pairs: every question, with its answer's text or None.
        missing: questions without an answer.
        foreign: rows that answer no question of this benchmark.
        repeated: rows whose question a later row answers again.
        conflicting: of those, the rows whose text the last one contradicts.
        ignored: rows that are the benchmark's own but do not count (GQA's unbalanced questions).
        stopped: the last questions have no answer: the run was stopped.
    """

    pairs: Sequence[tuple[Question, str | None]]
    missing: Sequence[Question]
    foreign: Sequence[AnswerRow]
    repeated: Sequence[AnswerRow]
    conflicting: Sequence[AnswerRow]
    ignored: Sequence[AnswerRow]

    @property
    def stopped(self) -> bool:
        """Whether the last question has no answer."""
        return bool(self.pairs) and self.pairs[-1][1] is None

    def counts(self) -> dict[str, int]:
        """For summaries: rows scored, missing, foreign, repeated, ignored."""
        return {
            "questions": len(self.pairs),
            "scored": len(self.pairs) - len(self.missing),
            "missing": len(self.missing),
            "foreign": len(self.foreign),
            "repeated": len(self.repeated),
            "ignored": len(self.ignored),
        }


def read_answers(paths: Sequence[Path]) -> list[AnswerRow]:
    """The rows of one or more answers files in the official format, in order.

    Raises EvaluationError that names the file and line of a row without question_id or text.
    """
    rows = []
    for path in paths:
        for number, line in lines(path):
            where = f"{path}, line {number}"
            rows.append(
                AnswerRow(
                    number,
                    entry(line, "question_id", (str, int), where),
                    entry({"prompt": "", **line}, "prompt", str, where),
                    entry(line, "text", str, where),
                    str(line.get("model_id", "")),
                )
            )
    return rows


def match(benchmark: Benchmark, dataset: Dataset, rows: Sequence[AnswerRow]) -> Matched:
    """Each question with its answer; of several the last counts, as in a dictionary."""
    known = {question.key for question in dataset.questions}
    found: dict[Hashable, AnswerRow] = {}
    foreign, repeated, ignored = [], [], []
    for row in rows:
        key = benchmark.answer_key(row)
        if key in dataset.ignored:
            ignored.append(row)
        elif key is None or key not in known:
            foreign.append(row)
        else:
            if key in found:
                repeated.append((key, found[key]))
            found[key] = row
    pairs = [
        (question, found[question.key].text if question.key in found else None)
        for question in dataset.questions
    ]
    return Matched(
        pairs,
        [question for question, text in pairs if text is None],
        foreign,
        [row for _, row in repeated],
        [row for key, row in repeated if row.text != found[key].text],
        ignored,
    )


def objection(benchmark: Benchmark, matched: Matched) -> str:
    """Why these answers may not be scored without being asked to; empty where they may."""
    reasons = []
    total = len(matched.pairs)
    if matched.missing and (benchmark.missing == "refused" or matched.stopped):
        ids = _names([question.question_id for question in matched.missing])
        first = matched.missing[0].row
        stopped = "; the last questions have none: the run was stopped early" if matched.stopped else ""
        reasons.append(
            f"{len(matched.missing)} of {total} questions have no answer "
            f"(from row {first} of the question file: {ids}){stopped}"
        )
    if matched.foreign:
        ids = _names([f"{row.question_id} in line {row.line}" for row in matched.foreign])
        reasons.append(f"{len(matched.foreign)} rows answer no question of {benchmark.title} ({ids})")
    if matched.conflicting:
        ids = _names([f"{row.question_id} in line {row.line}" for row in matched.conflicting])
        reasons.append(f"{len(matched.conflicting)} questions are answered twice and differently ({ids})")
    if not reasons:
        return ""
    return (
        "; ".join(reasons) + ". Complete the run, or use --partial to score the rows that fit (the last of "
        "repeated ones), or --as-official for what the official scorer prints"
    )


def check_models(rows: Sequence[AnswerRow], paths: Sequence[Path]) -> str:
    """The one model that gave the answers ('' where no row says). Raises EvaluationError for several."""
    models = sorted({row.model_id for row in rows if row.model_id})
    if len(models) > 1:
        names = ", ".join(map(str, paths))
        raise EvaluationError(
            f"{names}: the answers are of several models ({_names(models)}): score each model's file alone"
        )
    return models[0] if models else ""


def _names(ids: Sequence[object]) -> str:
    shown = ", ".join(str(i) for i in ids[:_NAMED])
    return f"{shown}, ..." if len(ids) > _NAMED else shown
