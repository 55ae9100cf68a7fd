# SPDX-License-Identifier: Apache-2.0
"""The foreign questions are foreign: training never saw their words; the report counts what is sure."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.nano.foreign import examine_foreign, foreign_questions, says_unknown
from mobilevlm_ros.evaluation.nano.kept_confidences import KeptConfidences
from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.scene import EXTRA_KINDS, KINDS
from mobilevlm_ros.training.nano.foreign_questions import NOT_KNOWING, WORDS, foreign_turn

HELD_OUT = json.loads(
    files("mobilevlm_ros.evaluation.nano").joinpath("foreign.json").read_text(encoding="utf-8")
)


def test_words_and_phrasings_of_the_examination_are_held_out_of_training() -> None:
    assert len(set(HELD_OUT["nouns"])) >= 300
    taught = {word for key in ("nouns", "compounds") for noun in WORDS[key] for word in (noun, *noun.split())}
    assert not taught & {word for noun in HELD_OUT["nouns"] for word in (noun, *noun.split())}
    known = {*KINDS, *EXTRA_KINDS}
    assert not known & {*WORDS["nouns"], *WORDS["compounds"], *HELD_OUT["nouns"]}
    scenes = {
        question.replace("{kind}", "{noun}")
        for words in (phrases.QUESTIONS, phrases.MORE_QUESTIONS)
        for family in words.values()
        for question in family
    }
    assert not {*WORDS["noun_questions"], *scenes} & set(HELD_OUT["noun_questions"])
    assert not set(WORDS["properties"]) & set(HELD_OUT["known_properties"])
    assert not {*WORDS["chat"], *WORDS["languages"], *WORDS["knowledge"]} & set(HELD_OUT["others"])


def test_taught_answers_say_that_they_do_not_know() -> None:
    rng = np.random.default_rng(1)
    turns = [foreign_turn(rng) for _ in range(300)]
    assert len({question for question, _ in turns}) > 250
    assert all(says_unknown(answer) for _, answer in turns)
    shares = Counter(answer for _, answer in turns)
    for answer, share in NOT_KNOWING:
        assert abs(shares[answer] / 300 - share) < 0.1
        assert share < 0.8  # what is learnt from it cannot be sure


def test_same_questions_twice_with_every_group_in_both_forms() -> None:
    one, two = (
        [(q.question, q.choices, q.group, int(q.image.sum())) for q in foreign_questions(40)] for _ in "ab"
    )
    assert one == two
    groups = Counter((group, bool(choices)) for _, choices, group, _ in one)
    assert groups["nouns", True] == groups["nouns", False] == 9
    assert groups["pictures", True] == groups["pictures", False] == 6
    assert len(groups) == 8


def test_photographs_stand_in_for_drawn_pictures() -> None:
    photo = np.full((20, 30, 3), 7, np.uint8)
    shown = [q for q in foreign_questions(40, [photo]) if q.group == "pictures"]
    assert all(q.image is photo for q in shown)


def test_report_counts_what_is_sure() -> None:
    asked: list[str] = []

    def student(image: np.ndarray, question: str, choices: tuple[str, ...]) -> tuple[str, float]:
        asked.append(question)
        sure = len(asked) % 10 == 0
        return ("yes" if choices else "I do not know."), 0.95 if sure else 0.5

    report = examine_foreign(student, 40)
    told = report.as_dict()
    assert told["above"] == 0.1 and told["asked"] == 40 and told["told"] == 20
    assert told["histogram"] == [0, 0, 0, 0, 0, 36, 0, 0, 0, 4]
    assert "**10.0%**" in report.table()
    assert len(report.surest) == 4


def test_a_killed_examination_does_not_ask_again(tmp_path: Path) -> None:
    def student(image: np.ndarray, question: str, choices: tuple[str, ...]) -> tuple[str, float]:
        if left and not left.pop():
            raise KeyboardInterrupt
        return "yes", 0.25 if choices else 0.75

    left = [False, *[True] * 12]
    identity = {"model_id": "student"}
    with pytest.raises(KeyboardInterrupt), KeptConfidences(tmp_path, identity, ()) as kept:
        examine_foreign(student, 20, known=kept.known, on_question=kept.add)
    asked: list[int] = []
    with KeptConfidences(tmp_path, identity, ()) as kept:
        assert len(kept.known) == 12
        report = examine_foreign(
            student, 20, known=kept.known, on_question=lambda number, *_: asked.append(number)
        )
    assert asked == list(range(12, 20))
    assert report.as_dict() == examine_foreign(student, 20).as_dict()
    with pytest.raises(EvaluationError, match="photos_sha256"):
        KeptConfidences(tmp_path, identity, [np.zeros((2, 2, 3), np.uint8)])


@pytest.mark.parametrize("line", ["{}", "[]", "null", '{"number": 0, "text": "a", "confidence": "sure"}'])
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, line: str) -> None:
    with KeptConfidences(tmp_path, {}, ()) as kept:
        kept.add(0, "yes", 0.5)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(EvaluationError, match="line 2"), KeptConfidences(tmp_path, {}, ()):
        pass
