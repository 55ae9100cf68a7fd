# SPDX-License-Identifier: Apache-2.0
"""A benchmark on a Ray cluster: one task for each shard of it (needs `ray`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import EvaluationError, MobileVLMError
from mobilevlm_ros.evaluation.benchmarks.registry import load
from mobilevlm_ros.evaluation.runner.run import Plan, run

RETRIES = 3
"""Times that a shard is begun again after its worker died; it goes on from what is answered."""

_EVERY = 0.5  # seconds between two looks at the tasks


@dataclass(frozen=True)
class FleetRun:
    """What a cluster shall do.

    Attributes:
        benchmark, data: as the command names them; every machine sees `data`, `model` and `plan.out` at the
            same paths.
        model, backend: of load_runtime; None is the small model that comes with the package.
        threads: of each worker; 0: one for each CPU that Ray gives it, which is one.
        plan: its shard is ignored.
        shards: tasks to make of it; 0: one for each CPU of the cluster.
    """

    benchmark: str
    data: Path
    model: Path | None
    backend: str
    threads: int
    plan: Plan
    shards: int = 0


def connect(address: str) -> None:
    """Joins the cluster at `address`; 'auto' is the one that this machine belongs to, 'local' a new one here.

    Raises EvaluationError when there is none.
    """
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EvaluationError(
            f"no Ray cluster at {address!r} ({error}): start one (ray start --head), or say --ray local"
        ) from error


def ask_shards(fleet: FleetRun, on_done: Callable[[int, int], object] = lambda done, shards: None) -> None:
    """Has every question asked by the cluster's workers, whose answers are then in the run's folder.

    What is answered already is not asked again. `on_done` hears of each look: shards that are done, and how
    many there are. Raises EvaluationError for a shard that failed, after the others are done.
    """
    cpus = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    count = fleet.shards or max(1, int(cpus))
    task = ray.remote(num_cpus=max(1, fleet.threads), max_retries=RETRIES)(_ask_shard)
    waiting = {task.remote(fleet, (number, count)): number for number in range(1, count + 1)}
    failures: list[str] = []
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=_EVERY)
        for reference in done:
            number = waiting.pop(reference)
            try:
                failures += ray.get(reference)
            except ray.exceptions.RayError as error:
                failures.append(f"shard {number} of {count}: {str(error).strip().splitlines()[-1]}")
        on_done(count - len(waiting), count)
    if failures:
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        raise EvaluationError(f"{'; '.join(failures[:5])}{more}: the same command asks what is missing")


def _ask_shard(fleet: FleetRun, shard: tuple[int, int]) -> list[str]:
    """In a worker: asks one shard; returns what failed, a sentence each."""
    try:
        benchmark, dataset = load(fleet.benchmark, fleet.data)
        runtime = load_runtime(fleet.model, fleet.backend, fleet.threads or 1)
        return list(run(benchmark, dataset, runtime, replace(fleet.plan, shard=shard)).failures)
    except MobileVLMError as error:
        return [f"shard {shard[0]} of {shard[1]}: {error}"]
