# SPDX-License-Identifier: Apache-2.0
"""A benchmark on a real Ray cluster of two CPUs: one of its workers is killed, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.registry import load
from mobilevlm_ros.evaluation.nano.pope_shaped import write_pope_shaped
from mobilevlm_ros.evaluation.runner.run import Plan, run

ray = pytest.importorskip("ray", reason="the extra `fleet` is not installed")
psutil = pytest.importorskip("psutil")

from mobilevlm_ros.evaluation.runner.fleet import FleetRun, ask_shards, connect  # noqa: E402

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        object_store_memory=80_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()


def kill_one_worker(runs: Path) -> bool:
    """Kills a worker that has asked something already."""
    if not any(path.stat().st_size for path in runs.glob("*/pope/journal-*.jsonl")):
        return False
    for process in psutil.process_iter(["name", "cmdline"]):
        if "ray::_ask_shard" in " ".join(process.info["cmdline"] or ()):
            os.kill(process.pid, signal.SIGKILL)
            return True
    return False


def test_a_killed_worker_loses_nothing(cluster: None, nano: Path, tmp_path: Path) -> None:
    scenes, runs = tmp_path / "pope", tmp_path / "runs"
    write_pope_shaped(scenes, 12)
    connect("auto")  # the cluster that is there
    fleet = FleetRun("pope", scenes, nano, "auto", 1, Plan(runs), shards=4)
    killed = []

    def on_done(done: int, shards: int) -> None:
        assert shards == 4
        if not killed and kill_one_worker(runs):
            killed.append(done)

    ask_shards(fleet, on_done)
    assert killed and killed[0] < 4, "it was done before a worker could be killed"
    benchmark, dataset = load("pope", scenes)
    runtime = load_runtime(nano, threads=1)
    scored = run(benchmark, dataset, runtime, Plan(runs))
    assert scored.summary["asked_now"] == 0 and scored.result is not None
    alone = run(benchmark, dataset, runtime, Plan(tmp_path / "alone"))
    assert scored.texts == alone.texts
    lines = [line for path in scored.folder.glob("journal*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["question_id"] for line in lines) == list(range(1, 217)), "each once"


def test_a_shard_that_fails_is_named(cluster: None, nano: Path, tmp_path: Path) -> None:
    write_pope_shaped(tmp_path / "pope", 2)
    fleet = FleetRun("pope", tmp_path / "pope", tmp_path / "no-bundle", "auto", 1, Plan(tmp_path / "runs"), 2)
    with pytest.raises(EvaluationError, match=r"shard \d of 2: .*no-bundle.*the same command asks"):
        ask_shards(fleet)
