# SPDX-License-Identifier: Apache-2.0
"""Pairs of pictures differ as their truth says; the examination asks each family equally often."""

from collections import Counter

import numpy as np
import pytest

from mobilevlm_ros.evaluation.nano.pairs import FIRST_PAIR_EXAM_SEED, evaluate_pairs, pair_exam
from mobilevlm_ros.simulation.pair_questions import PAIR_FAMILIES, describe_change, pair_agrees
from mobilevlm_ros.simulation.questions import QAPair
from mobilevlm_ros.simulation.scene_change import CHANGES, sample_pair


def test_families_are_asked_equally_often_and_seeds_are_held_out() -> None:
    asked = list(pair_exam(50, width=160, height=120))
    assert Counter(exchange.family for _, exchange, _ in asked) == dict.fromkeys(PAIR_FAMILIES, 10)
    assert min(seed for _, _, seed in asked) >= FIRST_PAIR_EXAM_SEED


def test_what_is_told_is_what_is_seen() -> None:
    """Told from the two observations alone, which the change did not make."""
    counted: Counter[str] = Counter()
    for seed in range(60):
        pair = sample_pair(seed, 160, 120)
        counted[pair.change.what] += 1
        before, after = (
            Counter((s.thing.kind, s.thing.color, s.thing.zone) for s in o.seen)
            for o in (pair.first, pair.second)
        )
        gone, come = list((before - after).elements()), list((after - before).elements())
        sentence = describe_change(pair.change)
        for kind, color, zone in come:
            assert kind in sentence
            assert zone in sentence or color in sentence
        expected = {
            "none": (0, 0),
            "appeared": (0, 1),
            "disappeared": (1, 0),
            "moved": (1, 1),
            "recolored": (1, 1),
        }
        assert (len(gone), len(come)) == expected[pair.change.what]
        if pair.change.what == "moved":
            assert gone[0][:2] == come[0][:2] and gone[0][2] != come[0][2]
        if pair.change.what == "recolored":
            assert gone[0][1] != come[0][1] and gone[0][2] == come[0][2]
    assert set(counted) == set(CHANGES)


@pytest.mark.parametrize(
    ("truth", "answer", "right"),
    [
        ("yes", "Yes, the ball moved.", True),
        ("no", "No", True),
        ("none", "There is no ball.", True),
        ("yes", "The ball is red.", False),
        ("A red ball on the left.", "a red ball on the left", True),
        ("A red ball on the left.", "A red ball on the right.", False),
        ("Nothing changed.", "Nothing changed.", True),
    ],
)
def test_answers_are_held_against_the_truth(truth: str, answer: str, right: bool) -> None:
    assert pair_agrees(QAPair("changed", "What changed?", truth, truth), answer) is right


def test_marks() -> None:
    truths = iter([exchange.answer for _, exchange, _ in pair_exam(20)])
    count = iter(range(20))

    def student(images: tuple[np.ndarray, np.ndarray], question: str) -> str:
        right = next(truths)
        assert images[0].shape == images[1].shape == (480, 640, 3)
        return "I do not know." if next(count) == 4 else right

    report = evaluate_pairs(student, 20)
    assert report.accuracy == 19 / 20 and len(report.failures) == 1
    assert "| **all** | 19 | 20 | **95.0%** |" in report.table()
