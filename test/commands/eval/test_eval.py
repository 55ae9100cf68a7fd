# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval BENCH --score-only`: the last line is JSON; what is refused says so and fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.cli import main

EVAL = Path(__file__).parents[2] / "data" / "eval"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    status = main(["eval", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return status, json.loads(captured.out.splitlines()[-1]), captured.err


def files(name: str, *answers: str) -> list[object]:
    return [name, "--data", EVAL / name, "--score-only", *(EVAL / name / answer for answer in answers)]


def test_scores_are_json_with_the_official_names(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {
        "pope": {"mean_f1_x100": 72.90448343079922},
        "gqa": {"accuracy": 50.0},
        "textvqa": {"accuracy": 73.99999999999993},
        "sqa": {"accuracy": 33.33333333333333, "img_accuracy": 29.03225806451613},
        "mme": {"perception": 1125.0, "cognition": 350.0},
        "mmbench": {"accuracy": 60.0},
    }
    for name, values in wanted.items():
        file = "predictions.jsonl" if name == "mmbench" else "answers.jsonl"
        status, told, _ = run(capsys, *files(name, file))
        assert status == 0
        assert {key: told[key] for key in values} == values
        low, high = told["interval95"]
        assert low <= told[told["interval_of"]] <= high
        assert told["scored"] + told["missing"] == told["questions"]


def test_a_half_finished_file_is_refused_counted_or_explained(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = files("pope", "answers_rows_missing.jsonl")
    status, told, err = run(capsys, *arguments)
    assert (status, told["mean_f1_x100"], told["scored"], told["missing"]) == (1, None, 0, 7)
    assert "7 of 48 questions have no answer (from row 4 of the question file" in err
    status, told, err = run(capsys, *arguments, "--partial")
    assert (status, told["scored"], told["missing"], told["partial"]) == (0, 41, 7, True)
    assert "7 of 48 questions have no answer; they are left out" in err
    status, told, err = run(capsys, *arguments, "--as-official")
    assert (status, told["mean_f1_x100"]) == (0, 47.023809523809526)
    assert "compared with another question's label" in err


def test_what_stops_the_official_scorer_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    status, told, err = run(capsys, *files("gqa", "answers_stopped_early.jsonl"), "--as-official")
    assert (status, told["accuracy"]) == (1, None)
    assert "the official scorer stops: Exception: missing predictions" in err


def test_several_files_are_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = (EVAL / "gqa" / "answers.jsonl").read_text().splitlines(keepends=True)
    parts = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    for part, own in zip(parts, (lines[:20], lines[20:])):
        part.write_text("".join(own))
    status, told, _ = run(capsys, "gqa", "--data", EVAL / "gqa", "--score-only", *parts)
    assert (status, told["accuracy"]) == (0, 50.0)


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "pope", "--data", str(EVAL / "gqa"), "--score-only", "x.jsonl"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("mobilevlm: error: ") and err.count("\n") == 1 and "these are files of GQA" in err
    assert main(["eval", "pope", "--data", str(EVAL / "pope"), "--score-only", "x.jsonl"]) == 1
    assert "x.jsonl cannot be read" in capsys.readouterr().err
