# SPDX-License-Identifier: Apache-2.0
"""Questions about a rendered scene, their true answers, and whether an answer agrees with the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.render import Observation, VisibleObject
from mobilevlm_ros.simulation.scene import KINDS, LIGHT_STATES, PAINTS

FAMILIES = (
    "existence",
    "color",
    "position",
    "distance",
    "count",
    "path",
    "signal",
    "identity",
    "daylight",
    "description",
)
PLACES = {"left": "on the left", "ahead": "ahead", "right": "on the right"}
NUMBERS = ("no", "one", "two", "three")


@dataclass(frozen=True)
class QAPair:
    """A question about a picture with the answer the model is taught to give."""

    family: str
    question: str
    answer: str
    truth: str  # the fact alone, in the canonical words that `fact` extracts


def name(seen: VisibleObject) -> str:
    """Noun phrase of a thing, without article: `red ball`, `person in blue`, `green traffic light`."""
    thing = seen.thing
    if thing.kind == "person":
        return f"person in {thing.color}"
    return thing.kind if thing.kind == "stop sign" else f"{thing.color} {thing.kind}"


def an(phrase: str) -> str:
    """The phrase with its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """Several of a kind or of a name: `boxes`, `red balls`, `people in blue`."""
    if noun.startswith("person"):
        return noun.replace("person", "people", 1)
    return f"{noun}es" if noun.endswith("box") else f"{noun}s"


def describe(seen: Sequence[VisibleObject]) -> str:
    """One sentence that names every thing and its place, from left to right."""
    if not seen:
        return "The road is empty."
    parts = [f"{an(name(s))} {PLACES[s.thing.zone]}" for s in seen]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{text[0].upper()}{text[1:]}."


def ask(
    observation: Observation, family: str, rng: np.random.Generator, *, phrasings: Sequence[str] | None = None
) -> QAPair | None:
    """One question of a family about a picture, or None where the picture gives no reason for one.

    `phrasings` replaces the built-in ways of asking. About half of the short-answer questions end in one of
    the suffixes of the official benchmarks and are answered in a word.
    """
    asked = _ASKERS[family](observation.seen, observation, rng)
    if asked is None:
        return None
    fields, truth, brief, sentence = asked
    template = str(rng.choice(list(phrasings or phrases.QUESTIONS[family])))
    question = template.format(**fields)
    if brief is None:
        return QAPair(family, question, sentence, truth)
    yes_no = brief in ("Yes", "No")
    if rng.random() < 0.5:
        suffixes = phrases.YES_NO_SUFFIXES if yes_no and rng.random() < 0.5 else phrases.SHORT_SUFFIXES
        return QAPair(family, question + str(rng.choice(list(suffixes))), brief, truth)
    return QAPair(family, question, sentence, truth)


Asked = tuple[dict[str, str], str, str | None, str]  # template fields, truth, one-word answer, sentence


def _existence(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked:
    present = sorted({name(s) for s in seen})
    if present and rng.random() < 0.5:
        chosen = seen[int(rng.integers(len(seen)))]
        noun = chosen.thing.kind if rng.random() < 0.4 else name(chosen)
        return _called(noun), "yes", "Yes", f"Yes, there is {an(noun)}."
    noun = absent(seen, rng)
    return _called(noun), "no", "No", f"No, there is no {noun}."


def _called(noun: str) -> dict[str, str]:
    """The fields that name a thing, whether one or several."""
    return {"a": an(noun), "noun": noun, "nouns": plural(noun)}


def absent(seen: Sequence[VisibleObject], rng: np.random.Generator) -> str:
    """A noun of something that is not there; half of the time it is close to something that is, by its kind
    or its colour."""
    kinds, names = {s.thing.kind for s in seen}, {name(s) for s in seen}
    while True:
        kind, color = str(rng.choice(KINDS)), str(rng.choice(PAINTS))
        if seen and rng.random() < 0.6:
            near_miss = seen[int(rng.integers(len(seen)))].thing
            kind, color = (near_miss.kind, color) if rng.random() < 0.6 else (kind, near_miss.color)
        if kind in ("cone", "stop sign") or (rng.random() < 0.25 and kind not in kinds):
            noun = kind
        elif kind == "traffic light":
            noun = f"{rng.choice(LIGHT_STATES)} traffic light"
        else:
            noun = f"person in {color}" if kind == "person" else f"{color} {kind}"
        if noun not in names and noun not in kinds and "orange" not in noun:
            return noun


def _single(
    seen: Sequence[VisibleObject], kinds: Sequence[str], rng: np.random.Generator
) -> VisibleObject | str | None:
    """A thing that is the only one of its kind; or, one time in eight, the name of a kind that is missing."""
    counts = Counter(s.thing.kind for s in seen)
    if rng.random() < 0.12:
        missing = [kind for kind in kinds if not counts[kind]]
        return str(rng.choice(missing)) if missing else None
    alone = [s for s in seen if counts[s.thing.kind] == 1 and s.thing.kind in kinds]
    return alone[int(rng.integers(len(alone)))] if alone else None


def _missing(kind: str) -> Asked:
    return {"kind": kind}, "none", "None", f"There is no {kind}."


def _color(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked | None:
    target = _single(seen, ("ball", "box", "car", "cone"), rng)
    if target is None or isinstance(target, str):
        return _missing(target) if target else None
    kind, color = target.thing.kind, target.thing.color
    return {"kind": kind}, color, color.capitalize(), f"The {kind} is {color}."


def _position(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked | None:
    target = _single(seen, KINDS, rng)
    if target is None or isinstance(target, str):
        return _missing(target) if target else None
    kind, zone = target.thing.kind, target.thing.zone
    return {"kind": kind}, zone, zone.capitalize(), f"The {kind} is {PLACES[zone]}."


def _distance(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked | None:
    target = _single(seen, KINDS, rng)
    if target is None or isinstance(target, str):
        return _missing(target) if target else None
    kind, reach = target.thing.kind, "near" if target.thing.is_near else "far"
    return {"kind": kind}, reach, reach.capitalize(), f"The {kind} is {reach}."


def _count(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked:
    counts = Counter(s.thing.kind for s in seen)
    if rng.random() < 0.3:
        noun, number = "object", len(seen)
    else:
        kinds = sorted(counts) if counts and rng.random() < 0.75 else list(KINDS)
        noun = str(rng.choice(kinds))
        number = counts[noun]
    nouns = plural(noun)
    verb, counted = ("is", noun) if number == 1 else ("are", nouns)
    return {"nouns": nouns}, str(number), str(number), f"There {verb} {NUMBERS[number]} {counted}."


def _path(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked:
    if any(s.thing.zone == "ahead" and s.thing.is_near for s in seen):
        return {}, "no", "No", "No, the path ahead is blocked."
    return {}, "yes", "Yes", "Yes, the path ahead is clear."


def _signal(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked | None:
    target = _single(seen, ("traffic light",), rng)
    if target is None or isinstance(target, str):
        return _missing(target) if target else None
    color = target.thing.color
    return {"kind": "traffic light"}, color, color.capitalize(), f"The traffic light is {color}."


def _identity(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked | None:
    zone = str(rng.choice(list(PLACES)))
    there = [s for s in seen if s.thing.zone == zone]
    if len(there) > 1 or (not there and rng.random() < 0.5):
        return None
    place = PLACES[zone]
    if not there:
        return {"place": place}, "nothing", "Nothing", f"Nothing is {place}."
    noun = name(there[0])
    return {"place": place}, noun, noun.capitalize(), f"{an(noun).capitalize()} is {place}."


def _daylight(seen: Sequence[VisibleObject], observation: Observation, rng: np.random.Generator) -> Asked:
    return {}, observation.light, observation.light.capitalize(), f"It is {observation.light}."


def _description(seen: Sequence[VisibleObject], _: Observation, rng: np.random.Generator) -> Asked:
    sentence = describe(seen)
    return {}, fact("description", sentence), None, sentence


_ASKERS = {
    "existence": _existence,
    "color": _color,
    "position": _position,
    "distance": _distance,
    "count": _count,
    "path": _path,
    "signal": _signal,
    "identity": _identity,
    "daylight": _daylight,
    "description": _description,
}


def fact(family: str, answer: str) -> str:
    """The fact an answer states, in canonical words; the empty string where it states none of its family.

    Sentences and one-word answers of the same fact give the same result: `Yes, there is a cone.` and `Yes`
    are both `yes`.
    """
    text = " ".join(answer.lower().replace(",", " , ").replace(".", " ").split())
    words = text.replace(",", " ").split()
    if family == "description":
        parts = text.replace(" and ", " , ").split(" , ")
        return "; ".join(sorted(part.strip() for part in parts if part.strip()))
    if family == "identity":
        return _identified(words)
    if words[:1] == ["none"] or words[:3] == ["there", "is", "no"]:
        return "0" if family == "count" else "none"
    return next(
        (word if family != "count" else _digit(word) for word in words if word in VOCABULARY[family]), ""
    )


def _identified(words: list[str]) -> str:
    text = " ".join(words)
    for place in PLACES.values():
        text = text.removesuffix(f" is {place}")
    for article in ("a ", "an "):
        text = text.removeprefix(article)
    return text


def _digit(word: str) -> str:
    return str(NUMBERS.index(word)) if word in NUMBERS else word


VOCABULARY: dict[str, frozenset[str]] = {
    "existence": frozenset({"yes", "no"}),
    "path": frozenset({"yes", "no"}),
    "color": frozenset({*PAINTS, "orange"}),
    "signal": frozenset(LIGHT_STATES),
    "position": frozenset(PLACES),
    "distance": frozenset({"near", "far"}),
    "count": frozenset({*NUMBERS, "0", "1", "2", "3"}),
    "daylight": frozenset({"day", "dusk"}),
}
"""The words that state a fact of a family."""


def agrees(exchange: QAPair, answer: str) -> bool:
    """Whether an answer states the exchange's truth."""
    return fact(exchange.family, answer) == exchange.truth
