# SPDX-License-Identifier: Apache-2.0
"""VQA soft accuracy and its normaliser, with the quirks of m4c_evaluator.py (pythia; byte-identical in MobileVLM).

Quirks that change scores and are kept: '/' becomes a blank and then 'a' is an article, so 'N/A' is 'n'; only
the first 32 full stops can go, because the original hands a flag where a count belongs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

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

# What people write without an apostrophe. Each entry is (without, with); those of the VQA evaluation code
# that map a word to itself are left out.
_CONTRACTIONS = dict(
    pair.split(":")
    for pair in (
        "aint:ain't arent:aren't cant:can't couldve:could've couldnt:couldn't couldn'tve:couldn't've "
        "couldnt've:couldn't've didnt:didn't doesnt:doesn't dont:don't hadnt:hadn't hadnt've:hadn't've "
        "hadn'tve:hadn't've hasnt:hasn't havent:haven't hed:he'd hed've:he'd've he'dve:he'd've hes:he's "
        "howd:how'd howll:how'll hows:how's Id've:I'd've I'dve:I'd've Im:I'm Ive:I've isnt:isn't itd:it'd "
        "itd've:it'd've it'dve:it'd've itll:it'll let's:let's maam:ma'am mightnt:mightn't "
        "mightnt've:mightn't've mightn'tve:mightn't've mightve:might've mustnt:mustn't mustve:must've "
        "neednt:needn't notve:not've oclock:o'clock oughtnt:oughtn't ow's'at:'ow's'at 'ows'at:'ow's'at "
        "'ow'sat:'ow's'at shant:shan't shed've:she'd've she'dve:she'd've she's:she's shouldve:should've "
        "shouldnt:shouldn't shouldnt've:shouldn't've shouldn'tve:shouldn't've somebody'd:somebodyd "
        "somebodyd've:somebody'd've somebody'dve:somebody'd've somebodyll:somebody'll somebodys:somebody's "
        "someoned:someone'd someoned've:someone'd've someone'dve:someone'd've someonell:someone'll "
        "someones:someone's somethingd:something'd somethingd've:something'd've "
        "something'dve:something'd've somethingll:something'll thats:that's thered:there'd "
        "thered've:there'd've there'dve:there'd've therere:there're theres:there's theyd:they'd "
        "theyd've:they'd've they'dve:they'd've theyll:they'll theyre:they're theyve:they've twas:'twas "
        "wasnt:wasn't wed've:we'd've we'dve:we'd've weve:we've werent:weren't whatll:what'll whatre:what're "
        "whats:what's whatve:what've whens:when's whered:where'd wheres:where's whereve:where've whod:who'd "
        "whod've:who'd've who'dve:who'd've wholl:who'll whos:who's whove:who've whyll:why'll whyre:why're "
        "whys:why's wont:won't wouldve:would've wouldnt:wouldn't wouldnt've:wouldn't've "
        "wouldn'tve:wouldn't've yall:y'all yall'll:y'all'll y'allll:y'all'll yall'd've:y'all'd've "
        "y'alld've:y'all'd've y'all'dve:y'all'd've youd:you'd youd've:you'd've you'dve:you'd've youll:you'll "
        "youre:you're youve:you've"
    ).split()
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
