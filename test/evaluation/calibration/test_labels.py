# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import ImageError, OptionError
from mobilevlm_ros.evaluation.calibration.labels import from_file, simulated

GOOD = {"image": "a.png", "question": "Is it red?", "choices": ["yes", "no"], "answer": "yes"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 9, 3), (0, 0, 200), np.uint8))
    return tmp_path


def test_reads_what_a_spreadsheet_saves(folder: Path) -> None:
    (folder / "L.CSV").write_text(
        "image,question,choices,answer\r\na.png,Is it red?,yes|no,no\r\n", "utf-8-sig"
    )
    assert [label.answer for label in from_file(folder / "L.CSV")] == ["no"]


def test_reads_jsonl_and_csv_alike(folder: Path) -> None:
    (folder / "l.jsonl").write_text(json.dumps(GOOD) + "\n\n" + json.dumps({**GOOD, "answer": "no"}))
    (folder / "l.csv").write_text(
        "image,question,choices,answer\na.png,Is it red?,yes|no,yes\na.png,Is it red?,yes|no,no\n"
    )
    for name in ("l.jsonl", "l.csv"):
        first, second = from_file(folder / name)
        assert (first.question, first.choices, first.answer, second.answer) == (
            "Is it red?",
            ("yes", "no"),
            "yes",
            "no",
        )
        assert first.image.shape == (8, 9, 3)
        assert first.image[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: no object"),
        ("[]", "line 1: no object"),
        ('{"image": "a.png"}', "question"),
        (json.dumps({**GOOD, "answer": "maybe"}), "none of the choices"),
        (json.dumps({**GOOD, "choices": 3}), "must be text"),
        (json.dumps({**GOOD, "image": 3}), "must be text"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, line: str, message: str) -> None:
    (folder / "l.jsonl").write_text(line)
    with pytest.raises(OptionError, match=message):
        list(from_file(folder / "l.jsonl"))


def test_a_missing_file_or_picture_is_named(folder: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        list(from_file(folder / "nothing.jsonl"))
    (folder / "l.jsonl").write_text(json.dumps({**GOOD, "image": "b.png"}))
    with pytest.raises(ImageError, match=r"b\.png"):
        list(from_file(folder / "l.jsonl"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode), st.sampled_from(["x.jsonl", "x.csv"]))
def test_any_file_is_read_or_refused(folder: Path, content: bytes, name: str) -> None:
    (folder / name).write_bytes(content)
    with contextlib.suppress(OptionError, ImageError):
        list(from_file(folder / name))


def test_simulated_labels_are_true_choices_and_repeatable() -> None:
    labels = list(simulated("nano", 12))
    assert len(labels) == 12
    assert all(label.answer in label.choices for label in labels)
    again = list(simulated("nano-hard", 12))
    assert [label.question for label in again] == [label.question for label in labels]
    assert not np.array_equal(again[0].image, labels[0].image)
    assert np.array_equal(again[0].image, next(simulated("nano-hard", 1)).image)
