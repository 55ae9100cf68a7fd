# SPDX-License-Identifier: Apache-2.0
"""VQA soft accuracy and its normaliser, with the quirks of m4c_evaluator.py (LLaVA, MobileVLM).

Quirks that change scores and are kept: '/' becomes a blank and then 'a' is an article, so 'N/A' is 'n'; only
the first 32 full stops can go, because the original hands a flag where a count belongs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

_PUNCTUATION = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`")
_MARKS = (*_PUNCTUATION, ",", "?", "!")
_FULL_STOP = re.compile(r"(?!<=\d)(\.)(?!\d)")
_DIGIT_COMMA = re.compile(r"(\d)(,)(\d)")
_MOST_STOPS = 32
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))

# What people write without an apostrophe, as in the VQA evaluation code.
_CONTRACTIONS: dict[str, str] = json.loads(
    Path(__file__).with_name("contractions.json").read_text(encoding="utf-8")
)


def normalize(text: str) -> str:
    """An answer as it is compared: lower case, without punctuation and articles, numbers as digits."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return _words(_punctuation(text))


def _punctuation(text: str) -> str:
    """Each mark goes where it touches a blank, or everywhere if a number has a comma; else it is a blank."""
    result = text
    for mark in _MARKS:
        touches = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if touches or _DIGIT_COMMA.search(text) else " ")
    return _FULL_STOP.sub("", result, count=_MOST_STOPS)


def _words(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 16)
def soft_scores(answers: tuple[str, ...]) -> dict[str, float]:
    """Each distinct normalised answer of the people to its score in 0..1: the mean over the sets that leave
    one person out of min(1, people who agree / 3) (VQA, arXiv 1505.00468). Others have 0.
    """
    given = [normalize(answer) for answer in answers]
    return {answer: _leave_one_out(answer, given) for answer in dict.fromkeys(given)}


def _leave_one_out(answer: str, given: Sequence[str]) -> float:
    total = given.count(answer)
    agreeing = [min(1.0, float(total - (other == answer)) / 3) for other in given]
    return sum(agreeing) / len(agreeing)
