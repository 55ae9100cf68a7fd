# SPDX-License-Identifier: Apache-2.0
import pytest

from mobilevlm_ros.demo.questions import judge, pick_questions
from mobilevlm_ros.simulation.scene_sampler import sample_scene


@pytest.mark.parametrize("seed", range(12))
def test_there_are_at_least_six_questions_that_can_be_judged_at_any_time(seed: int) -> None:
    scene = sample_scene(seed)
    questions = pick_questions(scene, 0.0)
    assert len(questions) >= 6
    assert {"existence", "count", "path", "description"} <= {question.family for question in questions}
    assert len({question.text for question in questions}) == len(questions)
    assert questions == pick_questions(scene, 0.0)
    for seconds in (0.0, 3.7, 61.3):
        for question in questions:
            verdict = judge(scene, question, judge(scene, question, "", seconds).truth, seconds)
            assert verdict.right, (question, verdict.truth)


def test_a_wrong_answer_is_wrong() -> None:
    scene = sample_scene(1)
    for question in pick_questions(scene, 0.0):
        assert not judge(scene, question, "I cannot say.", 0.0).right
