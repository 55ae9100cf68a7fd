# SPDX-License-Identifier: Apache-2.0
"""Pairs of pictures differ as their truth says; the examination asks each family equally often."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.evaluation.nano.benchmark import table
from mobilevlm_ros.evaluation.nano.pairs import FIRST_PAIR_EXAM_SEED, PAIRS, pair_exam, pair_questions
from mobilevlm_ros.evaluation.runner.prompts import read
from mobilevlm_ros.evaluation.runner.run import Plan, run
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request
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


def test_the_runner_shows_both_pictures_and_marks() -> None:
    asked = list(pair_exam(20))
    questions = pair_questions(20).questions
    for question, (images, exchange, _) in zip(questions, asked):
        assert question.prompt == exchange.question
        assert all(np.array_equal(read(p), image) for p, image in zip(question.pictures, images, strict=True))
    texts = ["I do not know." if q.row == 5 else q.truth.exchange.answer for q in questions]
    score = PAIRS.score(list(zip(questions, texts)))
    assert score.values == {"accuracy": 95.0} and len(score.details["failures"]) == 1
    assert "| **all** | 19 | 20 | **95.0%** |" in table(score.details)


def test_answers_about_two_pictures_are_those_of_the_robot(nano: Path, tmp_path: Path) -> None:
    runtime = load_runtime(nano, threads=1)
    outcome = run(PAIRS, pair_questions(8), runtime, Plan(tmp_path))
    assistant = Assistant(runtime, fast_preprocessing=False)
    asked = [
        assistant.ask([Frame(image) for image in images], Request(exchange.question)).text
        for images, exchange, _ in pair_exam(8)
    ]
    assert list(outcome.texts) == asked
