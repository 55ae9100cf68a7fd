# SPDX-License-Identifier: Apache-2.0
"""Questions from outside of nano's world: absent nouns, unknown properties, sums, chat, other languages.

The taught answer is one of NOT_KNOWING, drawn at random: a model that has learnt it writes the first of them
and is about as sure of it as its share. So its confidence tells a reader what its words do.

The words are in foreign.json. None of its nouns is in the examination (`evaluation/nano/foreign.json`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files

import numpy as np

from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.questions import an, plural
from mobilevlm_ros.simulation.scene import KINDS, PAINTS

NOT_KNOWING = (("I do not know.", 0.5), ("I cannot tell.", 0.3), ("I am not sure.", 0.2))
WORDS: dict[str, list[str]] = json.loads(
    files("mobilevlm_ros.training.nano").joinpath("foreign.json").read_text(encoding="utf-8")
)
"""Lists of words and of questions with fields."""

_MIXED = (
    "Is there {a} on the {other}?",
    "Is there {a} in the {other}?",
    "Is the {noun} near the {other}?",
)
_FAMILIES = ("existence", "existence", "existence", "color", "position", "distance", "count")


def foreign_turn(rng: np.random.Generator) -> tuple[str, str]:
    """A question from outside of nano's world, with an answer that says so."""
    question = foreign_question(rng)
    chance = rng.random()
    if chance < 0.3:
        question += str(rng.choice(phrases.SHORT_SUFFIXES))
    elif chance < 0.4:
        question += str(rng.choice(phrases.YES_NO_SUFFIXES))
    return question, not_knowing(rng)


def casually(question: str, rng: np.random.Generator) -> str:
    """The question, now and then in small letters or without its question mark, as people type."""
    asked, mark, suffix = question.partition("?")
    if rng.random() < 0.08:
        asked = asked.lower()
    if rng.random() < 0.05:
        mark = ""
    return asked + mark + suffix


def not_knowing(rng: np.random.Generator) -> str:
    """An answer that says that one does not know, each as often as NOT_KNOWING says."""
    return NOT_KNOWING[int(rng.choice(len(NOT_KNOWING), p=[share for _, share in NOT_KNOWING]))][0]


def foreign_question(rng: np.random.Generator) -> str:
    """A question without suffix. Most are about a noun, and most of those as one asks about known things."""
    kinds: tuple[tuple[Callable[[np.random.Generator], str], float], ...] = (
        (_about_noun, 0.58),
        (_property, 0.1),
        (_knowledge, 0.09),
        (_sum, 0.05),
        (_chat, 0.08),
        (_language, 0.05),
        (_gibberish, 0.05),
    )
    chosen = int(rng.choice(len(kinds), p=[share for _, share in kinds]))
    return kinds[chosen][0](rng)


def foreign_noun(rng: np.random.Generator) -> str:
    """A noun that nano does not know; one in four is made up, so that what it knows is what it recognises."""
    chance = rng.random()
    if chance < 0.25:
        syllables = rng.choice(WORDS["syllables"], int(rng.integers(1, 4)))
        noun = "".join(syllables) + _pick("endings", rng)
    elif chance < 0.37:
        noun = _pick("compounds", rng)
    else:
        noun = _pick("nouns", rng)
    if rng.random() < 0.15:
        noun = f"{rng.choice(PAINTS)} {noun}"
    return noun


def _pick(words: str, rng: np.random.Generator) -> str:
    choices = WORDS[words]
    return choices[int(rng.integers(len(choices)))]


def _about_noun(rng: np.random.Generator) -> str:
    noun, other, second = (foreign_noun(rng) for _ in range(3))
    if rng.random() < 0.3:
        other = str(rng.choice(KINDS))
    elif rng.random() < 0.2:
        known = str(rng.choice(KINDS))
        return str(rng.choice(_MIXED)).format(a=an(known), noun=known, other=other)
    if rng.random() < 0.65:
        family = str(rng.choice(_FAMILIES))
        wording: tuple[str, ...] = (*phrases.QUESTIONS[family], *phrases.MORE_QUESTIONS[family])
    else:
        wording = tuple(WORDS["noun_questions"])
    called = {"a": an(noun), "noun": noun, "nouns": plural(noun), "kind": noun}
    return str(rng.choice(list(wording))).format(**called, b=an(second), other=other)


def _property(rng: np.random.Generator) -> str:
    return _pick("properties", rng).format(known=rng.choice(KINDS), noun=foreign_noun(rng))


def _knowledge(rng: np.random.Generator) -> str:
    return _pick("knowledge", rng).format(
        place=_pick("places", rng),
        person=_pick("names", rng),
        topic=_pick("topics", rng),
        topic2=_pick("topics", rng),
        noun=_pick("nouns", rng),
        n=rng.integers(2, 1000),
    )


def _sum(rng: np.random.Generator) -> str:
    n, m = rng.integers(0, int(rng.choice((10, 100, 1000))), 2)
    return _pick("sums", rng).format(n=n, m=m, op=rng.choice(("+", "-", "*", "/", "x")))


def _chat(rng: np.random.Generator) -> str:
    return _pick("chat", rng)


def _language(rng: np.random.Generator) -> str:
    return _pick("languages", rng)


def _gibberish(rng: np.random.Generator) -> str:
    """Letters, digits and signs; or words of other questions in any order."""
    if rng.random() < 0.5:
        alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789 ?!#$%&")
        return "".join(rng.choice(alphabet, int(rng.integers(2, 24)))).strip() or "?"
    mixed = f"{foreign_noun(rng)} {_chat(rng)} {foreign_noun(rng)} {_property(rng)}".split()
    return " ".join(rng.permutation(mixed)[: int(rng.integers(2, 8))])
