# SPDX-License-Identifier: Apache-2.0
"""Questions about two pictures of one place, their true answers, and whether an answer agrees."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.questions import PLACES, QAPair, an, name
from mobilevlm_ros.simulation.render import VisibleObject
from mobilevlm_ros.simulation.scene import KINDS, SceneObject
from mobilevlm_ros.simulation.scene_change import PicturePair, SceneChange

PAIR_FAMILIES = ("moved", "appeared", "disappeared", "changed", "any change")
Asked = tuple[dict[str, str], str, str | None, str]  # as in questions.py


def ask_pair(pair: PicturePair, family: str, rng: np.random.Generator) -> QAPair | None:
    """One question of a family about a pair of pictures, or None where the pair gives no reason for one.

    Half of those that a word can answer end in a suffix of the official benchmarks, as in `questions.ask`.
    """
    asked = _ASKERS[family](pair, rng)
    if asked is None:
        return None
    fields, truth, brief, sentence = asked
    question = str(rng.choice(list(phrases.PAIR_QUESTIONS[family]))).format(**fields)
    if brief is not None and rng.random() < 0.5:
        yes_no = brief in ("Yes", "No") and rng.random() < 0.5
        suffixes = phrases.YES_NO_SUFFIXES if yes_no else phrases.SHORT_SUFFIXES
        return QAPair(family, question + str(rng.choice(list(suffixes))), brief, truth)
    return QAPair(family, question, sentence, truth)


def pair_agrees(exchange: QAPair, answer: str) -> bool:
    """Whether an answer states the exchange's truth: the yes or no, or the whole sentence."""
    words = answer.lower().replace(",", " ").replace(".", " ").split()
    if exchange.truth == "none":
        return words[:1] == ["none"] or words[:3] == ["there", "is", "no"]
    if exchange.truth in ("yes", "no"):
        return words[:1] == [exchange.truth]
    truth = exchange.truth.lower().replace(",", " ").replace(".", " ").split()
    return words == truth


def _moved(pair: PicturePair, rng: np.random.Generator) -> Asked | None:
    change = pair.change
    if change.what == "moved" and rng.random() < 0.7:
        before, after = _both(change)
        sentence = (
            f"Yes, the {before.kind} moved from {_side(before)} to {_side(after)}."
            if rng.random() < 0.5
            else f"Yes, the {before.kind} moved."
        )
        return {"kind": before.kind}, "yes", "Yes", sentence
    counts = Counter(seen.thing.kind for seen in pair.first.seen)
    later = Counter(seen.thing.kind for seen in pair.second.seen)
    moved = change.before.kind if change.what == "moved" and change.before else None
    if rng.random() < 0.12:
        missing = [kind for kind in KINDS if not counts[kind] and not later[kind]]
        kind = str(rng.choice(missing))
        return {"kind": kind}, "none", "None", f"There is no {kind}."
    still = [kind for kind in KINDS if counts[kind] == later[kind] == 1 and kind != moved]
    if not still:
        return None
    kind = str(rng.choice(still))
    return {"kind": kind}, "no", "No", f"No, the {kind} did not move."


def _appeared(pair: PicturePair, _: np.random.Generator) -> Asked:
    return _only(pair.change.after if pair.change.what == "appeared" else None)


def _disappeared(pair: PicturePair, _: np.random.Generator) -> Asked:
    return _only(pair.change.before if pair.change.what == "disappeared" else None)


def _only(thing: SceneObject | None) -> Asked:
    sentence = "Nothing." if thing is None else f"{_noun(thing)} {PLACES[thing.zone]}."
    return {}, sentence, None, sentence


def _changed(pair: PicturePair, _: np.random.Generator) -> Asked:
    sentence = describe_change(pair.change)
    return {}, sentence, None, sentence


def _any_change(pair: PicturePair, rng: np.random.Generator) -> Asked:
    if pair.change.what == "none":
        return {}, "no", "No", "No, nothing changed."
    told = describe_change(pair.change)
    told = told[0].lower() + told[1:] if rng.random() < 0.5 else "something changed."
    return {}, "yes", "Yes", f"Yes, {told}"


def describe_change(change: SceneChange) -> str:
    """One sentence that says what happened, and where."""
    if change.what == "none":
        return "Nothing changed."
    if change.what == "appeared" and change.after is not None:
        return f"{_noun(change.after)} appeared {PLACES[change.after.zone]}."
    if change.what == "disappeared" and change.before is not None:
        return f"{_noun(change.before)} {PLACES[change.before.zone]} disappeared."
    before, after = _both(change)
    if change.what == "moved":
        return f"The {before.kind} moved from {_side(before)} to {_side(after)}."
    return f"The {before.kind} changed from {before.color} to {after.color}."


_ASKERS = {
    "moved": _moved,
    "appeared": _appeared,
    "disappeared": _disappeared,
    "changed": _changed,
    "any change": _any_change,
}


def _both(change: SceneChange) -> tuple[SceneObject, SceneObject]:
    assert change.before is not None and change.after is not None
    return change.before, change.after


def _side(thing: SceneObject) -> str:
    return {"left": "the left", "ahead": "ahead", "right": "the right"}[thing.zone]


def _noun(thing: SceneObject) -> str:
    noun = an(name(VisibleObject(thing, 1.0, (0, 0, 0, 0))))
    return noun[0].upper() + noun[1:]
