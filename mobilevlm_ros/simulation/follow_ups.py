# SPDX-License-Identifier: Apache-2.0
"""Conversations about one thing: a question that names it, and questions that only say 'it'."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.questions import PLACES
from mobilevlm_ros.simulation.render import Observation
from mobilevlm_ros.simulation.scene import KINDS, LIGHT_STATES, PAINTS, SceneObject

DETAILS = ("color", "position", "distance")
_PAINTED = ("ball", "box", "car", "cone", "traffic light")

FOLLOW_UPS: dict[str, tuple[str, ...]] = {
    "color": (
        "And what color is it?",
        "What color is it?",
        "Which color is it?",
        "And its color?",
        "What is its color?",
        "What color does it have?",
    ),
    "position": (
        "And where is it?",
        "Where is it?",
        "On which side is it?",
        "Where do you see it?",
        "And where?",
        "What is its position?",
    ),
    "distance": (
        "And how far is it?",
        "How far is it?",
        "How far away is it?",
        "Is it near or far?",
        "How close is it?",
        "And how close is it?",
    ),
}
_SAME_AGAIN = ("And the {kind}?", "What about the {kind}?", "And what about the {kind}?")

Turn = tuple[str, str]


def follow_up(observation: Observation, rng: np.random.Generator) -> list[Turn] | None:
    """A conversation of two to four (question, answer) turns; None where no thing is alone of its kind.

    The first turn names a thing (one time in six a missing one), the next ask for its other details, check
    one with a yes or no, or ask the same of another thing.
    """
    counts = Counter(seen.thing.kind for seen in observation.seen)
    alone = {seen.thing.kind: seen.thing for seen in observation.seen if counts[seen.thing.kind] == 1}
    missing = [kind for kind in KINDS if not counts[kind]]
    named = missing if rng.random() < 1 / 6 else sorted(alone)
    if not named:
        return None
    kind = str(rng.choice(named))
    detail = str(rng.choice(_details(kind)))
    words = (*phrases.QUESTIONS[detail], *phrases.MORE_QUESTIONS[detail])
    turns = [_asked(str(rng.choice(list(words))).format(kind=kind), kind, alone.get(kind), detail, rng)]
    if rng.random() < 0.25:
        turns = [_exists(kind, kind in alone, rng)]
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.25:
            turns.append(check(kind, alone.get(kind), rng, "it"))
            continue
        others = [k for k in (*alone, *missing) if k != kind and detail in _details(k)]
        if others and rng.random() < 0.2:
            kind = str(rng.choice(others))
            question = str(rng.choice(_SAME_AGAIN)).format(kind=kind)
        else:
            detail = str(rng.choice(_details(kind)))
            question = str(rng.choice(FOLLOW_UPS[detail]))
        turns.append(_asked(question, kind, alone.get(kind), detail, rng))
    return turns


def checked(observation: Observation, rng: np.random.Generator) -> Turn | None:
    """One yes or no about a detail of a thing that is alone of its kind: `Is the ball red?`"""
    counts = Counter(seen.thing.kind for seen in observation.seen)
    alone = [seen.thing for seen in observation.seen if counts[seen.thing.kind] == 1]
    if not alone:
        return None
    thing = alone[int(rng.integers(len(alone)))]
    return check(thing.kind, thing, rng, f"the {thing.kind}")


def check(kind: str, thing: SceneObject | None, rng: np.random.Generator, called: str) -> Turn:
    """A yes or no about a detail of a thing (None: there is none of its kind), `called` so in it."""
    detail = str(rng.choice(_details(kind)))
    true = _fact(thing, detail) if thing is not None else ""
    options = {
        "color": LIGHT_STATES if kind == "traffic light" else PAINTS,
        "position": tuple(PLACES),
        "distance": ("near", "far"),
    }[detail]
    asked = true if true and rng.random() < 0.5 else str(rng.choice(list(options)))
    wording = "Is {called} {words}?" if rng.random() < 0.75 else "And is {called} {words}?"
    question = wording.format(called=called, words=PLACES.get(asked, asked))
    if thing is None:
        return _short(question, "None", f"There is no {kind}.", rng)
    sentence = f"{'Yes' if asked == true else 'No'}, the {kind} is {PLACES.get(true, true)}."
    return _short(question, sentence.split(",")[0], sentence, rng)


def _details(kind: str) -> tuple[str, ...]:
    return DETAILS if kind in _PAINTED else DETAILS[1:]


def _fact(thing: SceneObject, detail: str) -> str:
    if detail == "color":
        return thing.color
    return thing.zone if detail == "position" else "near" if thing.is_near else "far"


def _asked(
    question: str, kind: str, thing: SceneObject | None, detail: str, rng: np.random.Generator
) -> Turn:
    if thing is None:
        return _short(question, "None", f"There is no {kind}.", rng)
    true = _fact(thing, detail)
    return _short(question, true.capitalize(), f"The {kind} is {PLACES.get(true, true)}.", rng)


def _exists(kind: str, there: bool, rng: np.random.Generator) -> Turn:
    question = str(rng.choice(("Is there a {kind}?", "Do you see a {kind}?"))).format(kind=kind)
    if there:
        return _short(question, "Yes", f"Yes, there is a {kind}.", rng)
    return _short(question, "No", f"No, there is no {kind}.", rng)


def _short(question: str, brief: str, sentence: str, rng: np.random.Generator) -> Turn:
    """A third of the questions ask for a single word, as the benchmarks and questions with choices do."""
    if rng.random() < 1 / 3:
        return question + str(rng.choice(phrases.SHORT_SUFFIXES)), brief
    return question, sentence
