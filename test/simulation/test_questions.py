# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np
import pytest

from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.questions import FAMILIES, QAPair, agrees, ask, describe, fact
from mobilevlm_ros.simulation.render import Observation, VisibleObject, observe
from mobilevlm_ros.simulation.scene import SceneObject
from mobilevlm_ros.simulation.scene_sampler import sample_scene


def exchanges(count: int = 150) -> list[tuple[Observation, QAPair]]:
    rng = np.random.default_rng(5)
    observations = [observe(sample_scene(seed), 0.0, 160, 120) for seed in range(count)]
    asked = [(o, ask(o, family, rng)) for o in observations for family in FAMILIES]
    return [(o, exchange) for o, exchange in asked if exchange is not None]


ASKED = exchanges()


def test_every_answer_states_its_own_truth() -> None:
    for _, exchange in ASKED:
        assert agrees(exchange, exchange.answer), exchange


def test_answers_to_other_truths_disagree() -> None:
    by_family: dict[str, dict[str, str]] = {}
    for _, exchange in ASKED:
        by_family.setdefault(exchange.family, {})[exchange.truth] = exchange.answer
    for _, exchange in ASKED:
        for truth, answer in by_family[exchange.family].items():
            assert agrees(exchange, answer) == (truth == exchange.truth), (exchange, answer)


def test_truth_follows_the_scene() -> None:
    for observation, exchange in ASKED:
        things = [seen.thing for seen in observation.seen]
        if exchange.family == "path":
            blocked = any(t.zone == "ahead" and t.is_near for t in things)
            assert exchange.truth == ("no" if blocked else "yes")
        if exchange.family == "count" and "object" in exchange.question:
            assert exchange.truth == str(len(things))
        if exchange.family == "daylight":
            assert exchange.truth == observation.light
        if exchange.family == "description":
            assert exchange.truth.count(";") == max(0, len(things) - 1)


def test_yes_and_no_are_balanced() -> None:
    marks = Counter(exchange.truth for _, exchange in ASKED if exchange.family == "existence")
    assert 0.35 < marks["yes"] / sum(marks.values()) < 0.65


@pytest.mark.parametrize("family", FAMILIES)
def test_at_least_five_phrasings(family: str) -> None:
    assert len(set(phrases.QUESTIONS[family])) >= 5


def test_suffixes_bring_short_answers() -> None:
    suffixes = phrases.SHORT_SUFFIXES + phrases.YES_NO_SUFFIXES
    for _, exchange in ASKED:
        if exchange.question.endswith(suffixes):
            assert not exchange.answer.endswith(".")
            assert exchange.family != "description"
        if exchange.question.endswith(phrases.YES_NO_SUFFIXES):
            assert exchange.answer in ("Yes", "No")


def test_description_reads_from_left_to_right() -> None:
    box = VisibleObject(SceneObject("box", "red", 0.2, 5.0), 1.0, (0, 0, 1, 1))
    person = VisibleObject(SceneObject("person", "blue", 0.5, 5.0), 1.0, (0, 0, 1, 1))
    cone = VisibleObject(SceneObject("cone", "orange", 0.9, 5.0), 1.0, (0, 0, 1, 1))
    text = describe([box, person, cone])
    assert text == "A red box on the left, a person in blue ahead and an orange cone on the right."
    assert describe([]) == "The road is empty."


@pytest.mark.parametrize(
    ("family", "answer", "expected"),
    [
        ("existence", "Yes, there is a red ball.", "yes"),
        ("existence", "no", "no"),
        ("color", "The ball is red.", "red"),
        ("color", "There is no ball.", "none"),
        ("count", "There are no cones.", "0"),
        ("count", "There are two cones.", "2"),
        ("count", "Three", "3"),
        ("position", "The cone is on the right.", "right"),
        ("identity", "A person in red is ahead.", "person in red"),
        ("identity", "Orange cone", "orange cone"),
        ("identity", "Nothing is on the left.", "nothing"),
        ("distance", "", ""),
        ("path", "gibberish", ""),
    ],
)
def test_fact(family: str, answer: str, expected: str) -> None:
    assert fact(family, answer) == expected
