# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from pathlib import Path

import numpy as np

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.evaluation.nano.benchmark import table
from mobilevlm_ros.evaluation.nano.exam import FIRST_EXAM_SEED, SCENES, exam, scene_questions
from mobilevlm_ros.evaluation.runner.prompts import read
from mobilevlm_ros.evaluation.runner.run import Plan, run
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.simulation.questions import FAMILIES


def test_families_are_asked_equally_often_and_seeds_are_held_out() -> None:
    asked = list(exam(100, width=160, height=120))
    assert Counter(exchange.family for _, exchange, _ in asked) == dict.fromkeys(FAMILIES, 10)
    assert min(seed for _, _, seed in asked) >= FIRST_EXAM_SEED


def test_same_exam_twice() -> None:
    one, two = ([(e, s, int(i.sum())) for i, e, s in exam(20)] for _ in range(2))
    assert one == two


def test_the_runner_asks_about_the_pictures_of_the_exam() -> None:
    asked = list(exam(12))
    dataset = scene_questions(12)
    assert [q.prompt for q in dataset.questions] == [exchange.question for _, exchange, _ in asked]
    for question, (image, _, _) in zip(dataset.questions, asked):
        (picture,) = question.pictures
        assert np.array_equal(read(picture), image)
    assert len({q.pictures for q in dataset.questions}) == len({seed for *_, seed in asked})  # encoded once


def test_marks() -> None:
    questions = scene_questions(40).questions
    texts = ["I do not know." if q.row in (4, 18) else q.truth.exchange.answer for q in questions]
    score = SCENES.score(list(zip(questions, texts)))
    assert score.values == {"accuracy": 95.0} and score.rows == 40
    assert [(f["question"], f["answer"]) for f in score.details["failures"]] == [
        (questions[3].prompt, "I do not know."),
        (questions[17].prompt, "I do not know."),
    ]
    assert "| **all** | 38 | 40 | **95.0%** |" in table(score.details)


def test_a_missing_answer_is_no_right_one() -> None:
    (question,) = scene_questions(1).questions
    assert SCENES.score([(question, None)]).values == {"accuracy": 0.0}


def test_nano_is_examined_and_nothing_is_asked_twice(nano: Path, tmp_path: Path) -> None:
    """By the runner of the other benchmarks: answers are kept, and a second command finds them."""
    runtime = load_runtime(nano, threads=1)
    first, again = (run(SCENES, scene_questions(30), runtime, Plan(tmp_path)) for _ in range(2))
    assert first.result is not None and first.summary["accuracy"] >= 90
    assert first.summary["interval95"][0] <= first.summary["accuracy"]
    assert (first.summary["asked_now"], again.summary["asked_now"]) == (30, 0)
    assert list(first.texts) == list(again.texts)


def test_answers_are_those_of_the_robot(nano: Path, tmp_path: Path) -> None:
    """The runner writes the prompt as the official loops do; for these questions that is the robot's own."""
    runtime = load_runtime(nano, threads=1)
    outcome = run(SCENES, scene_questions(20), runtime, Plan(tmp_path))
    assistant = Assistant(runtime, fast_preprocessing=False)
    asked = [assistant.ask(Frame(image), Request(e.question)).text for image, e, _ in exam(20)]
    assert list(outcome.texts) == asked
