# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np

from mobilevlm_ros.evaluation.nano.exam import FIRST_EXAM_SEED, evaluate, exam
from mobilevlm_ros.simulation.questions import FAMILIES


def test_families_are_asked_equally_often_and_seeds_are_held_out() -> None:
    asked = list(exam(100, width=160, height=120))
    assert Counter(exchange.family for _, exchange, _ in asked) == dict.fromkeys(FAMILIES, 10)
    assert min(seed for _, _, seed in asked) >= FIRST_EXAM_SEED


def test_same_exam_twice() -> None:
    one, two = ([(e, s, int(i.sum())) for i, e, s in exam(20)] for _ in range(2))
    assert one == two


def test_marks() -> None:
    answers = iter([exchange.answer for _, exchange, _ in exam(40)])
    wrong = {3, 17}
    count = iter(range(40))

    def student(image: np.ndarray, question: str) -> str:
        right = next(answers)
        return "I do not know." if next(count) in wrong else right

    report = evaluate(student, 40)
    assert report.accuracy == 38 / 40
    assert len(report.failures) == 2
    assert "| **all** | 38 | 40 | **95.0%** |" in report.table()
