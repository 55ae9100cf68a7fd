# SPDX-License-Identifier: Apache-2.0
"""Prompts are the strings the official conversations give, to the space."""

from __future__ import annotations

import hashlib

import pytest

from mobilevlm_ros.errors import QuestionError
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def test_v1_asks_about_an_image():
    question = image_question("Who is the author?\nAnswer briefly.")
    assert TEMPLATES["v1"].render([(question, None)]) == (
        f"{SYSTEM} USER: <image>\nWho is the author?\nAnswer briefly. ASSISTANT:"
    )


def test_v1_without_an_image():
    assert (
        TEMPLATES["v1"].render([("How many people?", None)]) == f"{SYSTEM} USER: How many people? ASSISTANT:"
    )


def test_v1_goes_on_after_an_answer():
    turns = [("hi", "hello"), ("bye", None)]
    assert TEMPLATES["v1"].render(turns) == f"{SYSTEM} USER: hi ASSISTANT: hello</s>USER: bye ASSISTANT:"


def test_plain_is_image_and_caption():
    assert TEMPLATES["plain"].render([("<image>", "a red mug")]) == "<image>a red mug\n"
    assert TEMPLATES["plain"].render([("<image>", None)]) == "<image>"


# sha1 of what the official conversation of that name renders for these turns
TURNS = [("q", "a"), ("q2", None)]


@pytest.mark.parametrize(
    ("name", "length", "digest"),
    [
        ("v1", 198, "2314e3bd15ed273f01299a9aeae0cbd851afb99f"),
        ("vicuna_v0", 1694, "ec088138bf053e0b08fdf46d01c3dd68efd2ce81"),
        ("llama_2", 570, "51a31fea8f6288c44fbb8b13d692247baf9f9074"),
        ("llava_llama_2", 248, "5b29ffbd4a4abd235412656898f46c7c442b49a6"),
    ],
)
def test_other_conversations_are_the_official_ones(name, length, digest):
    text = TEMPLATES[name].render(TURNS)
    assert len(text) == length
    assert hashlib.sha1(text.encode()).hexdigest() == digest


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_begins_with_the_opening_and_an_answer_ends_with_the_stop(name):
    template = TEMPLATES[name]
    assert template.render([("q", None)]).startswith(template.opening)
    assert template.render([("q", "a")]).endswith(template.stop)


def test_a_placeholder_in_the_question_does_not_ask_for_a_second_image():
    assert image_question("what is <image> here?") == "<image>\nwhat is  here?"


@pytest.mark.parametrize(
    ("turns", "complaint"), [([], "at least one"), ([("a", None), ("b", None)], "turn 1 of 2")]
)
def test_conversations_that_make_no_prompt(turns, complaint):
    with pytest.raises(QuestionError, match=complaint):
        TEMPLATES["v1"].render(turns)
