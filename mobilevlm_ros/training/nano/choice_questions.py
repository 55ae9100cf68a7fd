# SPDX-License-Identifier: Apache-2.0
"""One choice of a list at a time: 'What do you see? ball? Yes or no?', as a list of choices is asked."""

from __future__ import annotations

import numpy as np

from mobilevlm_ros.processing.prompt_template import choice_question
from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.questions import NUMBERS, PLACES, VOCABULARY, absent, an, ask, name
from mobilevlm_ros.simulation.render import Observation, VisibleObject
from mobilevlm_ros.training.nano.foreign_questions import foreign_noun, not_knowing

LIST_QUESTIONS: tuple[str, ...] = (
    *phrases.QUESTIONS["description"],
    *phrases.MORE_QUESTIONS["description"],
    "Which of these do you see?",
    "Which of these are there?",
    "Which of these can you see?",
    "Which of these is in the image?",
    "Which objects do you see?",
    "Which objects are in the picture?",
    "Which things are there?",
    "What is there?",
    "What objects are there?",
    "What is visible?",
    "What does the camera see?",
    "What is on the road?",
    "Name what you see.",
    "List the objects.",
    "Select all that apply.",
)
_FAMILIES = ("color", "position", "distance", "count", "signal", "daylight")
_CHOICES = {family: sorted(VOCABULARY[family] - set(NUMBERS)) for family in _FAMILIES}


def choice_turn(observation: Observation, rng: np.random.Generator) -> tuple[str, str]:
    """Whether one choice answers a question that has several answers, or one."""
    chance = rng.random()
    if chance < 0.55:
        return _listed(observation, rng)
    if chance < 0.75:
        return _placed(observation, rng)
    return _of_family(observation, rng) or _listed(observation, rng)


def _listed(observation: Observation, rng: np.random.Generator) -> tuple[str, str]:
    """Is it in the picture? A noun of another world is not known."""
    question = str(rng.choice(list(LIST_QUESTIONS)))
    if rng.random() < 0.2:
        return choice_question(question, _offered(foreign_noun(rng), rng)), not_knowing(rng)
    there = _noun_of(observation.seen, rng) if rng.random() < 0.5 else None
    noun = there or absent(observation.seen, rng)
    return choice_question(question, _offered(noun, rng)), "Yes" if there else "No"


def _placed(observation: Observation, rng: np.random.Generator) -> tuple[str, str]:
    """Is it in that place? What stands elsewhere is the closest wrong choice."""
    zone = str(rng.choice(list(PLACES)))
    wording = str(rng.choice([*phrases.QUESTIONS["identity"], *phrases.MORE_QUESTIONS["identity"]]))
    here = [seen for seen in observation.seen if seen.thing.zone == zone]
    noun = _noun_of(here if rng.random() < 0.5 else observation.seen, rng)
    if noun is None or rng.random() < 0.2:
        noun = absent(observation.seen, rng)
    right = any(noun in (name(seen), seen.thing.kind) for seen in here)
    question = wording.format(place=PLACES[zone])
    return choice_question(question, _offered(noun, rng)), "Yes" if right else "No"


def _of_family(observation: Observation, rng: np.random.Generator) -> tuple[str, str] | None:
    """Is it the colour, the place, the number? None where the picture gives no reason to ask."""
    family = str(rng.choice(list(_FAMILIES)))
    wording = [*phrases.QUESTIONS[family], *phrases.MORE_QUESTIONS[family]]
    exchange = ask(observation, family, rng, phrasings=wording)
    if exchange is None:
        return None
    question = exchange.question
    for suffix in (*phrases.SHORT_SUFFIXES, *phrases.YES_NO_SUFFIXES):
        question = question.removesuffix(suffix)
    others = [choice for choice in _CHOICES[family] if choice != exchange.truth]
    choice = exchange.truth if rng.random() < 0.5 else str(rng.choice(others))
    return choice_question(question, choice), "Yes" if choice == exchange.truth else "No"


def _noun_of(seen: list[VisibleObject] | tuple[VisibleObject, ...], rng: np.random.Generator) -> str | None:
    if not seen:
        return None
    chosen = seen[int(rng.integers(len(seen)))]
    return chosen.thing.kind if rng.random() < 0.4 else name(chosen)


def _offered(noun: str, rng: np.random.Generator) -> str:
    """A choice as people write it: mostly the bare noun."""
    return an(noun) if rng.random() < 0.15 else noun
