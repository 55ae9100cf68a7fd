# SPDX-License-Identifier: Apache-2.0
import pytest

from mobilevlm_ros.memory.words import agreement, stem, understand, words


def exact(one: str, other: str) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("question", "terms", "order"),
    [
        ("a red ball on the left", ("red", "ball", "left"), 0),
        ("Where did you last see a red ball?", ("red", "ball"), 1),
        ("When was the first time that you saw people?", ("person",), -1),
        ("Show me the most recent pictures of two forklifts.", ("most", "two", "forklift"), 1),
        ("the last one", (), 1),
        ("Is there no box?", ("box",), 0),
        ("赤い球", ("赤", "い", "球"), 0),
        ("?!", (), 0),
        ("", (), 0),
    ],
)
def test_a_question_is_taken_apart(question: str, terms: tuple[str, ...], order: int) -> None:
    wanted = understand(question)
    assert (wanted.terms, wanted.order) == (terms, order)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("balls", "ball"), ("boxes", "box"), ("people", "person"), ("children", "child"), ("bus", "bus"),
        ("glass", "glass"), ("batteries", "battery"), ("robot's", "robot"), ("is", "is"),
        ("watches", "watch"),
    ],
)  # fmt: skip
def test_plurals_lose_their_ending(word: str, expected: str) -> None:
    assert stem(word) == expected


def score(question: str, text: str) -> float:
    coverage, order = agreement(understand(question), words(text), exact)
    return coverage + order


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("a red ball on the left", "A red ball on the left.", "A blue ball on the left, a red ball ahead."),
        ("a red ball on the left", "A red ball on the left.", "A blue ball on the left and a red box ahead."),
        (
            "on the left a red ball",
            "A red ball on the left.",
            "A blue ball on the left and a red ball ahead.",
        ),
        ("person in blue", "A person in blue ahead.", "A person in red ahead and a blue box on the left."),
        ("two dogs", "Two dogs on a sofa.", "A dog."),
        ("a white stop sign", "A white stop sign.", "A white ball on the left and a stop sign ahead."),
    ],
)
def test_words_that_belong_together_count_more(question: str, right: str, wrong: str) -> None:
    assert score(question, right) > score(question, wrong)
