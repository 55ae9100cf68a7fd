# SPDX-License-Identifier: Apache-2.0
"""Runs on nano and on the reference checkpoint: official answers, resumed after kill -9, in shards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS, load
from mobilevlm_ros.evaluation.benchmarks.types import Dataset
from mobilevlm_ros.evaluation.nano.pope_shaped import write_pope_shaped
from mobilevlm_ros.evaluation.runner.model import ExaminedModel
from mobilevlm_ros.evaluation.runner.run import Plan, check_pictures, run

ROOT = Path(__file__).parents[3]
EVAL = ROOT / "test" / "data" / "eval"


@pytest.fixture(scope="module")
def runtime(nano: Path) -> Runtime:
    return load_runtime(nano, threads=1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """POPE's files about ten simulated scenes: 180 questions."""
    folder = tmp_path_factory.mktemp("scenes") / "pope"
    assert write_pope_shaped(folder, 10) == 180
    return folder


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_answers_are_those_of_the_official_loops(name: str, parity: Path) -> None:
    """20 greedy tokens on the tiny V2 checkpoint in float32, and the text that the loop writes."""
    model = ExaminedModel(load_runtime(parity / "ckpt" / "tiny-ldpnetv2", "torch", 1))
    _, dataset = load(name, EVAL / name)
    records = json.loads((EVAL / name / "loader.json").read_text())
    close = 0
    for question, record in list(zip(dataset.questions, records))[:5]:
        written = model.answer([replace(question, max_tokens=20)])[0]
        if list(written.tokens) == record["answer_ids"]:
            assert written.text == record["answer_line"]["text"]
        else:
            close += 1
            assert record["smallest_logit_margin"] < 1e-3
    assert close <= 1


def test_asked_together_or_alone_nano_answers_the_same(
    runtime: Runtime, scenes: Path, tmp_path: Path
) -> None:
    benchmark, dataset = load("pope", scenes)
    part = Dataset(scenes, dataset.questions[:18])
    together = run(benchmark, part, runtime, Plan(tmp_path / "together"))
    alone = run(benchmark, part, runtime, Plan(tmp_path / "alone", together=False))
    assert together.texts == alone.texts
    assert set(together.texts) <= {"yes", "no", "Yes", "No"}


def test_a_killed_run_goes_on_without_asking_twice(nano: Path, scenes: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "mobilevlm_ros.cli", "eval", "pope", "--data", str(scenes), "--bundle",
        str(nano), "--threads", "1", "--out", str(tmp_path), "--json", "--no-latency",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    journal = None
    while process.poll() is None and time.monotonic() < deadline:
        journal = next(tmp_path.glob("*/pope/journal.jsonl"), None)
        if journal is not None and journal.stat().st_size:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL, "it was done before it could be killed"
    assert journal is not None
    before = journal.read_bytes()
    answered = before.count(b"\n")
    assert 0 < answered < 180
    assert not (journal.parent / "answers.jsonl").exists(), "no answers file of a run that is not complete"
    journal.write_bytes(before + b'{"question_id": 1, "te')  # killed in the middle of a write
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=True)
    assert f"going on: {answered} of 180 are answered" in again.stderr
    told = json.loads(again.stdout.splitlines()[-1])
    assert told["asked_now"] == 180 - answered
    assert (told["scored"], told["missing"], told["questions"]) == (180, 0, 180)
    assert journal.read_bytes().startswith(before)
    ids = [json.loads(line)["question_id"] for line in journal.read_text().splitlines()]
    assert sorted(ids) == list(range(1, 181)), "each question once"
    assert [row["question_id"] for row in rows_of(journal.parent)] == list(range(1, 181)), "official order"
    third = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=True)
    assert json.loads(third.stdout.splitlines()[-1])["asked_now"] == 0


def test_shards_make_one_run(runtime: Runtime, scenes: Path, tmp_path: Path) -> None:
    benchmark, dataset = load("pope", scenes)
    part = Dataset(scenes, [q for q in dataset.questions if q.row % 60 < 12])
    whole = run(benchmark, part, runtime, Plan(tmp_path / "whole"))
    first = run(benchmark, part, runtime, Plan(tmp_path / "parts", shard=(1, 2)))
    assert first.result is None and None in first.texts and not first.failures
    second = run(benchmark, part, runtime, Plan(tmp_path / "parts", shard=(2, 2)))
    assert second.result is not None and second.texts == whole.texts
    assert first.summary["asked_now"] + second.summary["asked_now"] == len(part.questions)  # type: ignore[operator]
    assert rows_of(second.folder) == rows_of(whole.folder)


def test_the_first_questions_alone_say_so_and_are_kept(
    runtime: Runtime, scenes: Path, tmp_path: Path
) -> None:
    benchmark, dataset = load("pope", scenes)
    outcome = run(benchmark, dataset, runtime, Plan(tmp_path, limit=7))
    assert (outcome.summary["scored"], outcome.summary["of"]) == (7, 180)
    assert outcome.summary["mean_f1_x100"] is None and outcome.summary["interval95"] is None
    assert sorted(path.name for path in outcome.folder.iterdir()) == [
        "answers-first-7.jsonl", "journal.jsonl", "run.json", "summary-first-7.json"
    ]  # fmt: skip
    seen = []
    run(
        benchmark,
        Dataset(scenes, dataset.questions),
        runtime,
        Plan(tmp_path, limit=9),
        lambda p: seen.append(p.done),
    )
    assert seen[0] == 7 and seen[-1] == 9


def test_another_models_folder_and_a_second_process_are_refused(
    runtime: Runtime, scenes: Path, tmp_path: Path
) -> None:
    benchmark, dataset = load("pope", scenes)
    outcome = run(benchmark, dataset, runtime, Plan(tmp_path, limit=1))
    identity = json.loads((outcome.folder / "run.json").read_text())
    (outcome.folder / "run.json").write_text(json.dumps({**identity, "fingerprint": "another"}))
    with pytest.raises(EvaluationError, match="holds answers of another run: its fingerprint is 'another'"):
        run(benchmark, dataset, runtime, Plan(tmp_path, limit=2))
    (outcome.folder / "run.json").unlink()
    before = (outcome.folder / "journal.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match="whose answers it holds is not known"):
        run(benchmark, dataset, runtime, Plan(tmp_path, limit=2))
    assert (outcome.folder / "journal.jsonl").read_bytes() == before
    (outcome.folder / "run.json").write_text(json.dumps(identity))

    def second(progress: object) -> None:
        with pytest.raises(EvaluationError, match="another process writes"):
            run(benchmark, dataset, runtime, Plan(tmp_path, limit=2))

    run(benchmark, dataset, runtime, Plan(tmp_path, limit=1), second)


def test_a_broken_picture_costs_its_questions_and_the_score(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    write_pope_shaped(folder, 2)
    benchmark, dataset = load("pope", folder)
    check_pictures(dataset.questions)
    (folder / "val2014" / "scene_000001.png").write_bytes(b"\x89PNG broken")
    outcome = run(benchmark, dataset, runtime, Plan(tmp_path / "runs"))
    assert outcome.result is None and "mean_f1_x100" not in outcome.summary
    assert outcome.summary["answered"] == 18
    assert "row 7, 8, 9" in outcome.failures[0] and "scene_000001.png is not a picture" in outcome.failures[0]
    (folder / "val2014" / "scene_000001.png").unlink()
    with pytest.raises(EvaluationError, match=r"18 of 36 questions have no picture file \(row 7: "):
        check_pictures(dataset.questions)
