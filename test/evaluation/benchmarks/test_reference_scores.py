# SPDX-License-Identifier: Apache-2.0
"""Scores equal those of the official scorers on the same files (test/data/eval/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.evaluation.benchmarks import mmbench, mme, pope, sqa
from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS, load
from mobilevlm_ros.evaluation.benchmarks.scoring.answers import match, read_answers
from mobilevlm_ros.evaluation.benchmarks.scoring.result import score_files
from mobilevlm_ros.evaluation.benchmarks.scoring.vqa_accuracy import normalize, soft_scores
from mobilevlm_ros.evaluation.benchmarks.types import AnswerRow, OfficialScore, Score

EVAL = Path(__file__).parents[2] / "data" / "eval"
MAIN = dict.fromkeys(BENCHMARKS, "answers.jsonl") | {"mmbench": "predictions.jsonl"}


def expected(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EVAL / name / "expected.json").read_text())
    return loaded


def scored(name: str, file: str) -> Score:
    benchmark, dataset = load(name, EVAL / name)
    score = score_files(benchmark, dataset, [EVAL / name / file], partial=True).score
    assert score is not None
    return score


def official(name: str, file: str) -> OfficialScore:
    benchmark, dataset = load(name, EVAL / name)
    return benchmark.official(dataset, read_answers([EVAL / name / file]))


def figures(name: str, wanted: dict[str, Any]) -> dict[str, float]:
    """The reference's figures under our names."""
    if name == "mme":
        return dict(zip(("perception", "cognition"), wanted["totals"]))
    if name == "mmbench":
        return {"accuracy": 100 * wanted["vlmevalkit_2026_08_exact_matching"]["overall"]}
    if name == "textvqa":
        return {"accuracy": wanted["accuracy_percent"]}
    if name == "sqa":  # the scorer prints this one with two decimals only
        return {
            "accuracy": wanted["accuracy"],
            "img_accuracy": wanted["img_correct"] / wanted["img_total"] * 100,
        }
    return {key: wanted[key] for key in BENCHMARKS[name].values if key in wanted}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_main_file_scores_to_the_last_digit(name: str) -> None:
    wanted = figures(name, expected(name)[MAIN[name]])
    found = {k: v for k, v in scored(name, MAIN[name]).values.items() if k in wanted}
    if name == "gqa":  # two decimals are all that it prints
        found = {key: round(value or 0, 2) for key, value in found.items()}
    assert found == wanted
    assert {k: pytest.approx(v, abs=0.005) for k, v in wanted.items()} == {
        k: v for k, v in official(name, MAIN[name]).values.items() if k in wanted
    }


def test_the_metric_for_intervals_is_the_score() -> None:
    for name, benchmark in BENCHMARKS.items():
        score = scored(name, MAIN[name])
        whole = float(score.metric.combine(score.metric.sums.sum(0)))
        assert whole == pytest.approx(score.values[benchmark.headline], rel=1e-12), name


def test_pope_tables() -> None:
    tables = scored("pope", "answers.jsonl").details["categories"]
    assert tables == expected("pope")["answers.jsonl"]["categories"]


def test_gqa_tables() -> None:
    wanted = expected("gqa")["answers.jsonl"]
    details = scored("gqa", "answers.jsonl").details
    names = ("structural type", "semantic type", "steps number", "words number")
    for ours, theirs in ((name.split()[0], name) for name in names):
        found = {k: [round(v, 2), n] for k, (v, n) in details[ours].items()}
        assert found == wanted[f"Accuracy / {theirs}"]


def test_mme_tasks() -> None:
    assert scored("mme", "answers.jsonl").details["tasks"] == expected("mme")["answers.jsonl"]["tasks"]


def test_mmbench_hits_and_categories() -> None:
    for file in ("predictions.jsonl", "predictions_rows_missing.jsonl"):
        wanted = expected("mmbench")[file]["vlmevalkit_2026_08_exact_matching"]
        score = scored("mmbench", file)
        assert score.values["accuracy"] == pytest.approx(100 * wanted["overall"], rel=1e-15)
        assert {str(j.question.truth.group): int(j.credit) for j in score.judged} == wanted["hit"]
        assert {k: v for k, v in wanted["groups"].items() if k.islower()} == score.details["category"]
        said = {row.question_id: row.text for row in read_answers([EVAL / "mmbench" / file])}
        _, dataset = load("mmbench", EVAL / "mmbench")
        for question in dataset.questions:
            read = mmbench.parse(said.get(question.question_id, "nan"), question.truth.options)
            assert (read or None) == wanted["extracted"][str(question.key)]


@pytest.mark.parametrize(("name", "parse"), [("pope", pope.parse), ("sqa", sqa.parse), ("mme", mme.parse)])
def test_every_answer_is_read_as_officially(name: str, parse: Any) -> None:
    rows = read_answers([EVAL / name / "answers.jsonl"])
    records = {(str(r["question_id"]), r.get("prompt")): r["parsed"] for r in expected(name)["records"]}
    for row in rows:
        key = (str(row.question_id), row.prompt if name == "mme" else None)
        assert parse(row.text) == records[key], row


def test_gqa_and_sqa_records() -> None:
    for name, field in (("gqa", "converted"), ("sqa", "parsed")):
        wanted = {str(r["question_id"]): r for r in expected(name)["records"]}
        for j in scored(name, "answers.jsonl").judged:
            record = wanted.get(str(j.question.question_id))
            if record is not None:
                assert (j.parsed, bool(j.credit)) == (record[field], record["correct"])


def test_textvqa_normaliser_and_soft_scores() -> None:
    _, dataset = load("textvqa", EVAL / "textvqa")
    rows = read_answers([EVAL / "textvqa" / "answers.jsonl"])
    for row, question, record in zip(rows, dataset.questions, expected("textvqa")["records"], strict=True):
        assert normalize(row.text) == record["normalised_prediction"]
        assert [normalize(answer) for answer in question.truth.answers] == record["normalised_answers"]
        assert soft_scores(question.truth.answers) == record["answer_scores"]


@pytest.mark.parametrize(
    ("name", "file", "values", "error", "hidden"),
    [
        ("pope", "answers_rows_missing.jsonl", {"mean_f1_x100": 47.023809523809526}, "", "another"),
        ("pope", "answers_stopped_early.jsonl", {"mean_f1_x100": None}, "ZeroDivisionError", "16 labels"),
        ("gqa", "answers_repeated_and_foreign.jsonl", {"accuracy": 47.5}, "", "unknown questions"),
        ("gqa", "answers_stopped_early.jsonl", {"accuracy": None}, "missing predictions", ""),
        ("sqa", "answers_stopped_early.jsonl", {"accuracy": 16.666666666666664, "img_accuracy": 25.0}, "",
         "22 missing"),
        ("textvqa", "answers_stopped_early.jsonl", {"accuracy": 89.41176470588235}, "", "53 missing"),
        ("mmbench", "predictions_rows_missing.jsonl", {"accuracy": 26.666666666666668}, "", "9 missing"),
    ],
)  # fmt: skip
def test_what_the_official_scorer_makes_of_odd_files(
    name: str, file: str, values: dict[str, float | None], error: str, hidden: str
) -> None:
    found = official(name, file)
    assert {key: found.values[key] for key in values} == values
    assert error in found.error and bool(error) == bool(found.error)
    assert any(hidden in text for text in found.hides) or not hidden


def test_mme_as_officially_pairs_lines_and_stops() -> None:
    benchmark, dataset = load("mme", EVAL / "mme")
    rows = read_answers([EVAL / "mme" / "answers.jsonl"])
    early = benchmark.official(dataset, rows[:41])
    assert dict(early.values) == {"perception": 1125.0, "cognition": None} and "AssertionError" in early.error
    broken = [*rows[:4], AnswerRow(5, rows[4].question_id, rows[4].prompt, "Yes\nthere are"), *rows[5:]]
    assert benchmark.official(dataset, broken).values["perception"] is None
    order = [13, 15, 14, 16]
    swapped = [*rows[:12], *(rows[line - 1] for line in order), *rows[16:]]
    found = benchmark.official(dataset, swapped)
    assert dict(found.values) == {"perception": 1175.0, "cognition": 350.0}
    assert "two pictures" in found.hides[0]
    # Ours pairs the answers about one picture, in whatever order they come.
    ours = benchmark.score(match(benchmark, dataset, swapped).pairs)
    assert ours.values == {"perception": 1125.0, "cognition": 350.0}
