# SPDX-License-Identifier: Apache-2.0
"""Training data out of a recording: what our own trainer and exam read, with a person's corrections."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.bags.demo_recording import DemoOptions, record_demo
from mobilevlm_ros.cli import main
from mobilevlm_ros.evaluation.exam.questions import read_exam
from mobilevlm_ros.processing.image_file import read_picture
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sequence import SceneSequence


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, nano: Path) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    record_demo(folder / "demo.mcap", DemoOptions(seconds=5, rate=1, scene_seconds=1, raw=True))
    words = ["ask-bag", str(folder / "demo.mcap"), "Is there a person?", "-o", str(folder / "a.mcap")]
    assert main([*words, "--quiet", "--threads", "1", "--choices", "yes", "no"]) == 0
    return folder / "a.jsonl"


def build(*words: object) -> int:
    return main(["bag-to-dataset", *map(str, words), "--quiet"])


def test_trainer_and_exam_read_it(answers: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from mobilevlm_ros.training.data.dataset import open_dataset

    out = tmp_path / "data"
    assert build(answers, "-o", out, "--png", "--holdout", 0.4) == 0
    tokenizer = Path(__file__).parents[2] / "models" / "nano" / "bundle" / "tokenizer.model"
    dataset = open_dataset(out / "train.json", tokenizer, "v1", 1024, 1024, images=out)
    assert len(dataset) == 3
    for sample in dataset.samples:
        assert sample.turns[0] == ("human", "<image>\nIs there a person?")
        assert sample.turns[1][1] in ("yes", "no")
    questions = read_exam(out / "exam.json", out)
    assert [q.choices for q in questions] == [("yes", "no")] * 2
    # The same file serves both, and a picture without loss is the recorded one.
    assert len(read_exam(out / "train.json", out)) == 3
    last = read_picture(questions[-1].images[0])
    np.testing.assert_array_equal(last, observe(*SceneSequence(0, 1.0).at(4.0)).image)


def test_a_persons_corrections(answers: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "data"
    assert build(answers, "-o", out) == 0
    table = out / "review.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and {row["keep"] for row in rows} == {"yes"}
    rows[1]["answer"] = "no" if rows[1]["answer"] == "yes" else "yes"
    rows[2]["keep"] = "no"
    del rows[3]

    def save() -> bytes:
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return table.read_bytes()

    edited = save()
    assert build(answers, "-o", out, "--reviewed", table) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert build(answers, "-o", out, "--reviewed", table, "--overwrite") == 0
    questions = read_exam(out / "train.json", out)
    assert [(q.id, q.answers[0]) for q in questions] == [
        (rows[i]["id"], rows[i]["answer"]) for i in (0, 1, 3)
    ]
    assert len(list((out / "images").iterdir())) == 3
    assert table.read_bytes() == edited  # what a person wrote stays
    capsys.readouterr()
    rows[0]["answer"] = "perhaps"
    save()
    assert build(answers, "-o", out, "--reviewed", table, "--overwrite") == 1
    assert "row 2: the answer 'perhaps' is not one of the choices" in capsys.readouterr().err
    assert len(read_exam(out / "train.json", out)) == 3


def test_a_moved_recording_and_asking_at_once(answers: Path, tmp_path: Path, capsys: Any) -> None:
    moved = tmp_path / "elsewhere" / "demo.mcap"
    moved.parent.mkdir()
    shutil.copy(answers.with_name("demo.mcap"), moved)
    (tmp_path / "a.jsonl").write_text(answers.read_text().replace(str(answers.parent), "/gone"))
    assert build(tmp_path / "a.jsonl", "-o", tmp_path / "one") == 1
    assert "--bag" in capsys.readouterr().err and not (tmp_path / "one").exists()
    assert build(tmp_path / "a.jsonl", "-o", tmp_path / "one", "--bag", moved) == 0
    question = ("--question", "Is there a person?", "--choices", "yes", "no")
    assert build(moved, "-o", tmp_path / "two", "--threads", 1, *question) == 0
    one, two = ((tmp_path / name / "train.json").read_text() for name in ("one", "two"))
    assert one == two
