# SPDX-License-Identifier: Apache-2.0
"""Words of questions and of texts: which of them carry meaning, and how well two texts agree in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS = _set(
    "a about an and any are around as at be been being beside by camera can close could did do does find "
    "for frame frames from get give had has have he her here him his how i image images in into is it its "
    "look looked me moment moments my near next of on one ones or our photo photos picture pictures "
    "please remember robot saw scene scenes see seen she show some something spot spotted tell that the "
    "their them there these they thing things this those time times to us was we were what when where "
    "which while who whose will with would you your"
)
"""Words of English that say nothing about what is looked for."""

NEWEST = _set("last latest lately newest recent recently")
OLDEST = _set("first earliest oldest")
"""Words that ask for the newest or the oldest of what matches."""

NEGATIONS = _set("no not none nobody nothing never without neither nor cannot")
"""Words with which a text says that something is not there."""

_IRREGULAR = {
    "people": "person", "persons": "person", "men": "man", "women": "woman", "children": "child",
    "kids": "kid", "feet": "foot", "mice": "mouse", "geese": "goose", "knives": "knife", "shelves": "shelf",
    "colour": "color", "colours": "color", "grey": "gray", "metre": "meter", "metres": "meter",
}  # fmt: skip
"""Plurals and spellings that no ending tells."""

_PLURALS: dict[str, tuple[str, ...]] = {}
for _word, _stem in _IRREGULAR.items():
    _PLURALS[_stem] = (*_PLURALS.get(_stem, ()), _word)

# Scripts that are written without spaces (kana, Han, Hangul): each sign is a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:'[^\W_]+)?|[,;.!?]")
_PAUSE = frozenset(",;.!?")
_PARTS = _PAUSE | {"and", "but", "or", "while"}
"""What parts a sentence into clauses."""

REVERSED, ONE_CLAUSE = 0.5, 0.85
"""What two words count that stand near each other, but the other way round ('ball, red' for 'red ball'), and
what words in one clause do, however they stand.
"""

_NOWHERE = -1


def words(text: str) -> list[str]:
    """The words of a text in lower case, and the marks that part it (a pause keeps words apart)."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def stem(word: str) -> str:
    """The word without its plural or possessive ending: the S-stemmer of Harman (1991), and some plurals that
    no ending tells.
    """
    word = word.removesuffix("'s")
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies"):
        return word if word.endswith(("aies", "eies")) else word[:-3] + "y"
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]


def spellings(word: str) -> tuple[str, ...]:
    """What a text may have in place of a stem."""
    return (word, *_PLURALS.get(word, ()))


@dataclass(frozen=True)
class Wanted:
    """A question as a search understands it.

    Attributes:
        terms: stems of the words that carry meaning, in their order.
        places: of each in the question, counted in words.
        order: 1: the newest of what matches first; -1: the oldest; 0: the best.
        negated: the question itself says no.
        phrase: the question from its first to its last term, without what asks.
    """

    terms: tuple[str, ...]
    places: tuple[int, ...]
    order: int
    negated: bool
    phrase: str


def understand(text: str) -> Wanted:
    """What is looked for in a description or a question. Without any word of meaning all words count."""
    said = words(text)
    plain = [(at, word) for at, word in enumerate(said) if word not in _PAUSE]
    order = 1 if any(word in NEWEST for word in said) else -1 if any(word in OLDEST for word in said) else 0
    asks = STOP_WORDS | NEWEST | OLDEST | NEGATIONS
    kept = [(at, stem(word)) for at, word in plain if word not in asks]
    if not kept:
        kept = [(at, stem(word)) for at, word in plain if order == 0 and word not in STOP_WORDS] or [
            (at, stem(word)) for at, word in plain if order == 0
        ]
    places = tuple(at for at, _ in kept)
    span = said[places[0] : places[-1] + 1] if kept else []
    return Wanted(
        tuple(word for _, word in kept),
        places,
        order,
        any(word in NEGATIONS or word.endswith("n't") for word in said),
        " ".join(word for word in span if word not in _PAUSE),
    )


def negates(said: Sequence[str]) -> bool:
    """Whether a text's words say that something is not there."""
    return any(word in NEGATIONS or word.endswith("n't") for word in said)


def agreement(wanted: Wanted, said: Sequence[str], alike: Callable[[str, str], float]) -> tuple[float, float]:
    """How well a text agrees with what is wanted: (coverage, order), each 0 to 1.

    Coverage is the share of the wanted words that the text has, where `alike` gives what another word counts
    in place of the wanted one. Order is whether those words belong together, as those of 'a red ball on the
    left' do not in 'a blue ball on the left, a red box ahead': they stand as near each other and in the same
    order as in what is wanted, above all those that stood side by side there ('red ball'), or in one clause.

    Args:
        said: `words` of the text.
        alike: of two stems, 0 to 1.
    """
    if not wanted.terms:
        return 0.0, 0.0
    stems = [stem(word) for word in said]
    covered = 0.0
    where: list[list[int]] = []
    for term in wanted.terms:
        at = [place for place, word in enumerate(stems) if word == term]
        where.append(at)
        if at:
            covered += 1.0
        else:
            covered += max((alike(term, word) for word in set(stems) if word not in _PAUSE), default=0.0)
    order = max(_order(wanted.places, where), ONE_CLAUSE * _in_one_clause(stems, wanted.terms))
    return covered / len(wanted.terms), order


def _in_one_clause(stems: Sequence[str], terms: Sequence[str]) -> bool:
    clause: set[str] = set()
    for word in (*stems, "."):
        if word not in _PARTS:
            clause.add(word)
        elif clause.issuperset(terms):
            return True
        else:
            clause = set()
    return False


def _order(places: Sequence[int], where: Sequence[Sequence[int]]) -> float:
    """The best chain of occurrences, one for each wanted word (dynamic programming over occurrences): the
    mean of its steps, times the worst step between words that stood side by side. A word that is missing
    breaks the chain.
    """
    if len(places) == 1:
        return float(bool(where[0]))
    best: dict[int, tuple[float, float]] = dict.fromkeys(where[0] or [_NOWHERE], (0.0, 1.0))
    for index in range(1, len(places)):
        gap = places[index] - places[index - 1]
        best = {
            at: max(_extended(chain, before, at, gap) for before, chain in best.items())
            for at in where[index] or [_NOWHERE]
        }
    total, bond = max(best.values())
    return bond * total / (len(places) - 1)


def _extended(chain: tuple[float, float], before: int, at: int, gap: int) -> tuple[float, float]:
    """(sum of steps, worst step side by side) of a chain that goes on from `before` to `at`."""
    total, bond = chain
    if _NOWHERE in (before, at):
        return chain
    step = _step(at - before, gap)
    return total + step, min(bond, step) if gap == 1 else bond


def _step(distance: int, gap: int) -> float:
    """1 for words as near as they were wanted, or nearer."""
    if distance == 0:
        return 0.0
    near = min(1.0, gap / abs(distance))
    return near if distance > 0 else REVERSED * near
