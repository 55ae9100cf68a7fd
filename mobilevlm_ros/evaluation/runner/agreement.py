# SPDX-License-Identifier: Apache-2.0
"""Where two models answer differently: precisions of one model, backends, or a bundle and its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mobilevlm_ros.evaluation.runner.run import Outcome


@dataclass(frozen=True)
class Difference:
    """A question whose answers are not the same text."""

    row: int
    question_id: str | int
    question: str
    reference: str
    candidate: str


@dataclass(frozen=True)
class Agreement:
    """How often a candidate says what the reference says, word for word.

    Attributes:
        reference, candidate: model ids.
        questions: both answered.
        equal: answers that are the same text.
        different: the others, in the question file's order.
    """

    reference: str
    candidate: str
    questions: int
    equal: int
    different: Sequence[Difference]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the differing answers."""
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "questions": self.questions,
            "equal": self.equal,
            "share": self.equal / self.questions if self.questions else None,
        }


def agreement(reference: Outcome, candidate: Outcome) -> Agreement:
    """Compares the answers that both have, by question."""
    theirs = {q.key: text for q, text in zip(candidate.questions, candidate.texts)}
    different, asked = [], 0
    for question, wanted in zip(reference.questions, reference.texts):
        given = theirs.get(question.key)
        if wanted is None or given is None:
            continue
        asked += 1
        if wanted != given:
            different.append(
                Difference(question.row, question.question_id, question.saved_prompt, wanted, given)
            )
    return Agreement(
        str(reference.summary["model_id"]),
        str(candidate.summary["model_id"]),
        asked,
        asked - len(different),
        different,
    )
