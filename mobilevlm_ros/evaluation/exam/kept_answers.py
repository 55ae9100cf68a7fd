# SPDX-License-Identifier: Apache-2.0
"""Answers of an exam on disk as they come: a sitting that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.exam.questions import ExamQuestion
from mobilevlm_ros.evaluation.exam.score import Marked, marked
from mobilevlm_ros.evaluation.runner.journal import Journal


class KeptAnswers:
    """The answers that one model gave to one exam.

    Correcting the exam's right answers or tags keeps them; another question, choice or picture does not.

    Args:
        folder: of the exam and the model; made where it is missing.
        identity: of the model, see model_identity.
        questions: the whole exam.

    Use as a context manager, which holds the folder's lock. Raises EvaluationError when the folder holds
    the answers of another model or exam, or another process writes.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], questions: Sequence[ExamQuestion]) -> None:
        self._journal = Journal(folder, {**identity, "questions_sha256": _digest(questions)})
        self._questions = {question.row: question for question in questions}
        self.known: dict[int, Marked] = {}
        """Marked answers of earlier sittings, by row."""

    def __enter__(self) -> KeptAnswers:
        self._journal.__enter__()
        for number, line in enumerate(self._journal.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                kept = json.loads(line)
                question = self._questions[kept["row"]]
                probabilities = tuple(map(float, kept["probabilities"]))
                answer = marked(question, str(kept["text"]), float(kept["confidence"]), probabilities)
            except (ValueError, TypeError, KeyError) as error:
                raise EvaluationError(
                    f"{self._journal.path}, line {number} is no answer of this exam: use another --out, or "
                    "delete that file"
                ) from error
            self.known.setdefault(question.row, answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def add(self, answer: Marked) -> None:
        """Keeps one more; after it returns, a killed process has not lost it."""
        line = {
            "row": answer.question.row,
            "text": answer.text,
            "confidence": answer.confidence,
            "probabilities": list(answer.probabilities),
        }
        self._journal.add([json.dumps(line) + "\n"])


def _digest(questions: Sequence[ExamQuestion]) -> str:
    digest = hashlib.sha256()
    for q in questions:
        asked = [q.row, list(map(str, q.images)), q.question, *q.choices]
        digest.update(json.dumps(asked).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
