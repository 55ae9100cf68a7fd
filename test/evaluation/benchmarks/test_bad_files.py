# SPDX-License-Identifier: Apache-2.0
"""Files that cannot be scored as they are: each is named with its row, none is scored in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS, load
from mobilevlm_ros.evaluation.benchmarks.scoring.answers import match, objection, read_answers
from mobilevlm_ros.evaluation.benchmarks.scoring.result import score_files, score_rows
from mobilevlm_ros.evaluation.benchmarks.types import AnswerRow

EVAL = Path(__file__).parents[2] / "data" / "eval"
MAIN = dict.fromkeys(BENCHMARKS, "answers.jsonl") | {"mmbench": "predictions.jsonl"}
LINE = {"question_id": 1, "prompt": "p", "text": "t"}


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return shutil.copytree(EVAL / name, tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'{"question_id": 1, "text"', "line 2 is not JSON"),
        (b'{"question_id": 1, "text"', "cut off"),
        (b'{"question_id": 1, "prompt": "p"}\n', "line 2 has no field 'text'"),
        (b'{"question_id": 1, "text": null}\n', "line 2: 'text' is None, expected text"),
        (b'{"question_id": true, "text": "x"}\n', "line 2: 'question_id' is True"),
        (b"[1]\n", "line 2 holds a list"),
        (b"\xff\xfe\n", "line 2 is not JSON"),
        (b"[" * 100_000 + b"\n", "line 2 is not JSON"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, raw: bytes, says: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(json.dumps(LINE).encode() + b"\n" + raw)
    with pytest.raises(EvaluationError, match=says):
        read_answers([file])


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_an_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.mktemp("bytes") / "answers.jsonl"
    file.write_bytes(raw)
    with suppress(EvaluationError):  # anything else is a traceback
        assert all(isinstance(row.text, str) for row in read_answers([file]))


LOADED = {name: load(name, EVAL / name) for name in BENCHMARKS}


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_score_covers_other_rows_than_it_says(data: st.DataObject) -> None:
    """Whatever rows are dropped, doubled or added: refused, or counted and true of what is left."""
    name = data.draw(st.sampled_from(sorted(BENCHMARKS)))
    benchmark, dataset = LOADED[name]
    rows = read_answers([EVAL / name / MAIN[name]])
    kept = data.draw(st.lists(st.sampled_from(rows), unique_by=lambda row: row.line, max_size=len(rows)))
    doubled = data.draw(st.lists(st.sampled_from(rows), max_size=3))
    foreign = [AnswerRow(0, f"no such question {i}", "?", "yes") for i in range(data.draw(st.integers(0, 2)))]
    given_rows = [*kept, *doubled, *foreign]
    matched = match(benchmark, dataset, given_rows)
    counts = matched.counts()
    answered = {benchmark.answer_key(row) for row in (*kept, *doubled)} - dataset.ignored
    assert counts["scored"] == len(answered)
    assert counts["missing"] == len(dataset.questions) - len(answered)
    assert counts["foreign"] == len(foreign)
    result = score_rows(benchmark, dataset, given_rows, "")
    told = result.as_dict(intervals=False)
    if objection(benchmark, matched):
        assert told["refused"] and told["scored"] == 0
        assert all(told[value] is None for value in benchmark.values)
    else:
        assert told["scored"] == len(answered)
        assert not counts["missing"] or benchmark.missing == "wrong"
    partial = score_rows(benchmark, dataset, given_rows, "", partial=True)
    assert partial.score is not None and partial.score.rows <= len(answered)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_another_benchmarks_folder_says_what_was_found(name: str, tmp_path: Path) -> None:
    other = "pope" if name != "pope" else "gqa"
    with pytest.raises(EvaluationError) as caught:
        load(name, EVAL / other)
    message = str(caught.value)
    assert "expected" in message and "found" in message
    assert message.endswith(f"these are files of {BENCHMARKS[other].title}")
    with pytest.raises(EvaluationError, match="is no directory"):
        load(name, tmp_path / "nowhere")


def test_answers_of_several_models_are_refused(tmp_path: Path) -> None:
    lines = (EVAL / "pope" / "answers.jsonl").read_text().splitlines()
    lines[7] = json.dumps({**json.loads(lines[7]), "model_id": "another"})
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(lines))
    benchmark, dataset = load("pope", EVAL / "pope")
    with pytest.raises(EvaluationError, match="several models \\(another, reference\\)"):
        score_files(benchmark, dataset, [file])


def test_another_benchmarks_answers_are_refused() -> None:
    benchmark, dataset = load("mme", EVAL / "mme")
    result = score_files(benchmark, dataset, [EVAL / "pope" / "answers.jsonl"])
    assert result.score is None and "48 rows answer no question of MME" in result.refused


def edit_lines(file: Path, change: Callable[[list[str]], list[str]]) -> None:
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")


def edit_json(file: Path, change: Callable[[Any], Any]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def test_a_newer_pope_annotation_file_is_refused_with_its_line(copy: Callable[[str], Path]) -> None:
    folder = copy("pope")
    random = folder / "coco" / "coco_pope_random.json"
    edit_lines(random, lambda lines: [*lines, lines[-1]])
    with pytest.raises(EvaluationError, match=r"coco_pope_random.json has 17 lines.*16 questions.*e3e39262"):
        load("pope", folder)
    edit_lines(random, lambda lines: [lines[1], lines[0], *lines[2:16]])
    with pytest.raises(EvaluationError, match=r"coco_pope_random.json, line 1 is about .* another version"):
        load("pope", folder)


@pytest.mark.parametrize(
    ("name", "file", "change", "says"),
    [
        ("pope", "llava_pope_test.jsonl", lambda lines: [*lines, lines[4]], "row 49: .* '5' is also row 5"),
        ("gqa", "llava_gqa_testdev_balanced.jsonl", lambda lines: lines[:-1], "does not ask 1 balanced"),
        ("gqa", "llava_gqa_testdev_balanced.jsonl",
         lambda lines: [lines[0].replace("10000001", "7"), *lines[1:]], "line 1: question 7 is not in"),
        ("textvqa", "llava_textvqa_val_v051_ocr.jsonl",
         lambda lines: [lines[0].replace("What brand", "Which brand"), *lines[1:]], "has no question"),
        ("mme", "llava_mme.jsonl", lambda lines: lines[:-1], "has 1 questions; MME asks two"),
        ("mme", "llava_mme.jsonl", lambda lines: [lines[0].replace("bench", "bank"), *lines[1:]],
         "line 1: .* has no label for"),
        ("mmbench", "mmbench_dev_en_20231003.tsv", lambda lines: lines[:-1], "has 3 rows for its 4 options"),
        ("mmbench", "mmbench_dev_en_20231003.tsv",
         lambda lines: [lines[0].replace("answer", "solution"), *lines[1:]], "has no column answer"),
        ("mmbench", "mmbench_dev_en_20231003.tsv", lambda lines: [*lines[:3], lines[3] + "\tx", *lines[4:]],
         "row 3 has another number of cells"),
    ],
)  # fmt: skip
def test_changed_question_files_are_refused_with_their_row(
    copy: Callable[[str], Path], name: str, file: str, change: Any, says: str
) -> None:
    folder = copy(name)
    edit_lines(folder / file, change)
    with pytest.raises(EvaluationError, match=says):
        load(name, folder)


def test_sqa_files_of_different_versions(copy: Callable[[str], Path]) -> None:
    folder = copy("sqa")
    edit_json(folder / "pid_splits.json", lambda splits: {**splits, "test": [*splits["test"], "999"]})
    with pytest.raises(EvaluationError, match=r"first: 999"):
        load("sqa", folder)
    edit_json(folder / "llava_test_CQM-A.json", lambda rows: [*rows, rows[3]])
    with pytest.raises(EvaluationError, match="row 43: question '104' is also row 4"):
        load("sqa", folder)
