# SPDX-License-Identifier: Apache-2.0
"""answer_format 'choice_list': every choice that applies, each from a yes-or-no question of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

from mobilevlm_ros.inference.types import Answer, AnswerFormat, Latency, Request
from mobilevlm_ros.processing.prompt_template import choice_question

NONE = "none"
BLANK = "{}"
"""Where it stands in the question, the choice is put: 'Is there a {} on the left?'."""


def questions(request: Request) -> list[Request]:
    """For each choice, whether it applies: a request with the choices 'yes' and 'no'."""
    return [
        replace(
            request,
            question=_ask(request.question, choice),
            choices=("yes", "no"),
            answer_format=AnswerFormat(),
            abstain_threshold=0.0,
        )
        for choice in request.choices
    ]


def combine(request: Request, answers: Sequence[Answer]) -> Answer:
    """One answer from those to `questions(request)`: the choices with a probability of at least 0.5."""
    odds = tuple(answer.choice_probabilities[0] for answer in answers)
    chosen = [choice for choice, p in zip(request.choices, odds, strict=True) if p >= 0.5]
    return replace(
        answers[0],
        text=", ".join(chosen) or NONE,
        # Each choice was asked on its own, so the whole list is right if every one of them is.
        confidence=math.prod(max(p, 1 - p) for p in odds),
        choices=request.choices,
        choice_probabilities=odds,
        latency=_total([answer.latency for answer in answers]),
        prompt_tokens=max(answer.prompt_tokens for answer in answers),
        finish_reason="choice",
    )


def _total(latencies: Sequence[Latency]) -> Latency:
    parts = [field.name for field in fields(Latency)]
    return Latency(**{part: sum(getattr(latency, part) for latency in latencies) for part in parts})


def _ask(question: str, choice: str) -> str:
    if BLANK in question:
        return question.replace(BLANK, choice)
    return choice_question(question, choice)
