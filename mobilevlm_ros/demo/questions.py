# SPDX-License-Identifier: Apache-2.0
"""What the demo asks: questions about a scene whose answers the simulation knows. Needs no ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.simulation.questions import QAPair, agrees, ask
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene import Scene

_PLAN = (
    "existence",
    "existence",
    "color",
    "position",
    "count",
    "path",
    "signal",
    "distance",
    "identity",
    "daylight",
    "description",
)
_ABSENT = ("none", "nothing", "0")
_TRIES = 300
_SMALL = (80, 60)  # pixels: the truth does not depend on the size of the picture


@dataclass(frozen=True)
class DemoQuestion:
    """A question, the choices that go with it (empty for free text), and the random seed that asks it."""

    family: str
    text: str
    choices: tuple[str, ...]
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """An answer held against the scene at the time of its picture. `truth` is the model answer in words."""

    truth: str
    right: bool


def pick_questions(scene: Scene, seconds: float) -> list[DemoQuestion]:
    """Six to eleven questions about what the scene shows at a time, in seconds since its start.

    The same scene gives the same questions. One asks for something that is there (if anything is), one for
    something that is not, and the path is asked with choices, which gives a probability for each.
    """
    observation = observe(scene, seconds, *_SMALL)
    wanted_existence = ["yes", "no"] if observation.seen else ["no", "no"]
    picked: list[DemoQuestion] = []
    for index, family in enumerate(_PLAN):
        truth = wanted_existence.pop(0) if family == "existence" else None
        question = _pick(observation, family, truth, (scene.seed, index), {q.text for q in picked})
        if question is not None:
            picked.append(question)
    return picked


def _pick(
    observation: Observation, family: str, truth: str | None, seed: tuple[int, ...], taken: set[str]
) -> DemoQuestion | None:
    """A question of a family that is answered in a sentence, about something that is there where possible."""
    for attempt in range(_TRIES):
        exchange = ask(observation, family, np.random.default_rng([*seed, attempt]))
        if exchange is None or not exchange.answer.endswith(".") or exchange.question in taken:
            continue
        if truth is not None and exchange.truth != truth:
            continue
        if exchange.truth in _ABSENT and attempt < _TRIES // 2:
            continue
        choices = ("yes", "no") if family == "path" else ()
        return DemoQuestion(family, exchange.question, choices, (*seed, attempt))
    return None


def judge(scene: Scene, question: DemoQuestion, answer: str, seconds: float) -> Judgement:
    """Whether an answer is true of the scene at the time of its picture."""
    exchange = _same_question(scene, question, seconds)
    return Judgement(exchange.answer, agrees(exchange, answer))


def _same_question(scene: Scene, question: DemoQuestion, seconds: float) -> QAPair:
    """The exchange of the same question at another time: things move, so the truth may change."""
    observation = observe(scene, seconds, *_SMALL)
    for attempt in range(100 * _TRIES):
        # The seed that asked it asks it again, unless things have changed places.
        seed = question.seed if attempt == 0 else (*question.seed, attempt)
        exchange = ask(observation, question.family, np.random.default_rng(seed))
        if exchange is not None and exchange.question == question.text:
            return exchange
    raise ValueError(f"{question.text!r} cannot be asked about seed {scene.seed} at {seconds:.2f} s")
