# SPDX-License-Identifier: Apache-2.0
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.errors import OptionError, QuestionError
from mobilevlm_ros.inference.types import Request, SamplingParams
from mobilevlm_ros.inference.validate import MAX_CHOICES, MAX_QUESTION, check_request


@pytest.mark.parametrize(
    ("question", "what"),
    [
        ("", "is empty"),
        (" \n\t ", "is empty"),
        ("x" * 10_000, "has 10000 characters: shorten it to 2000"),
        ("is\x00it", r"U\+0000 at position 2"),
        ("\x1b[31mred", r"U\+001B"),
        ("a\x7fb", r"U\+007F"),
        ("half \ud83d", r"U\+D83D"),
        ("two <image> pictures", "<image>"),
        ("end</s>ed", "</s>"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_with_the_reason(question: str, what: str) -> None:
    with pytest.raises(QuestionError, match=what):
        check_request(Request(question))


@pytest.mark.parametrize(
    "question", ["Is it \U0001f916?", "Was ist das für ein Schild?", "这是什么?", "x" * MAX_QUESTION, "?"]
)
def test_any_language_and_emoji_are_fine(question: str) -> None:
    assert check_request(Request(question)).question == question


def test_white_space_is_made_uniform() -> None:
    assert check_request(Request("  a\tb\r\nc ")).question == "a b\nc"


@pytest.mark.parametrize(
    ("choices", "what"),
    [
        (("yes",), "only one choice"),
        (("yes", "no", "Yes "), "choices 1 and 3"),
        (("yes", ""), "choice 2 is empty"),
        (("yes", "n\x01o"), "choice 2 holds"),
        (("yes", "n" * 300), "choice 2 has 300"),
        (tuple(map(str, range(MAX_CHOICES + 1))), "at most"),
    ],
)
def test_choices_that_cannot_be_told_apart_or_read_are_refused(choices: tuple[str, ...], what: str) -> None:
    with pytest.raises(QuestionError, match=what):
        check_request(Request("Is it?", choices=choices))


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 10**9},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"seed": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"repetition_penalty": 0.1},
        {"repetition_penalty": math.nan},
        {"logprobs": 5},
        {"top_logprobs": -1},
        {"top_logprobs": 21, "logprobs": True},
        {"top_logprobs": 1},
        {"stop": ("",)},
        {"stop": ("x",) * 99},
    ],
)
def test_options_out_of_range_name_the_field(fields: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(fields))):
        check_request(Request("Is it?", sampling=SamplingParams(**fields)))


@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_is_cleaned_or_refused(text: str) -> None:
    try:
        question = check_request(Request(text)).question
    except QuestionError:
        return
    assert question and question == question.strip()
    assert check_request(Request(question)).question == question
