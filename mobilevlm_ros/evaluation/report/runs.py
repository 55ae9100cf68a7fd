# SPDX-License-Identifier: Apache-2.0
"""Finds the summaries below a folder of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS
from mobilevlm_ros.evaluation.report.published import COLUMNS, Row
from mobilevlm_ros.files.json_fields import read_json
from mobilevlm_ros.files.kinds import NUMBER

SUMMARY = "summary.json"
LATENCY = "latency.json"


@dataclass(frozen=True)
class ModelRuns:
    """One model's complete runs.

    Attributes:
        row: its headline scores.
        intervals: 95 % of each.
        latency: as `mobilevlm bench --json` prints it; empty where nobody measured.
        summaries: by benchmark.
    """

    row: Row
    intervals: dict[str, tuple[float, float]]
    latency: dict[str, Any]
    summaries: dict[str, dict[str, Any]]

    def official(self, name: str) -> bool:
        """Whether the benchmark's questions are as many as the official set's."""
        size = BENCHMARKS[name].size
        return not size or self.summaries[name].get("questions") == size

    @property
    def seconds(self) -> float | None:
        """From a new picture to the end of an answer of as many tokens as were measured."""
        return self.latency.get("total")

    @property
    def peak_bytes(self) -> int:
        """Greatest memory of the process that measured; 0 where nobody did."""
        return int(self.latency.get("peak_bytes") or 0)


def find_runs(folder: Path) -> list[ModelRuns]:
    """Every model with at least one complete run below `folder` (out/MODEL/BENCHMARK/summary.json).

    Raises EvaluationError when there is none, or a summary cannot be read.
    """
    found = []
    for model in sorted({path.parents[1] for path in folder.glob(f"*/*/{SUMMARY}")}):
        summaries = {
            name: _read(model / name / SUMMARY) for name in COLUMNS if (model / name / SUMMARY).is_file()
        }
        if not summaries:
            continue
        scores, intervals = {}, {}
        for name, told in summaries.items():
            value: Any = told.get(BENCHMARKS[name].headline)
            if not NUMBER.fits(value):
                raise EvaluationError(
                    f"{model / name / SUMMARY} holds no {BENCHMARKS[name].headline}: run it again"
                )
            scores[name] = float(value)
            if told.get("interval95"):
                low, high = told["interval95"]
                intervals[name] = (float(low), float(high))
        latency = _read(model / LATENCY) if (model / LATENCY).is_file() else {}
        found.append(ModelRuns(Row(model.name, scores, str(model)), intervals, latency, summaries))
    if not found:
        raise EvaluationError(
            f"{folder} holds no complete run (MODEL/BENCHMARK/{SUMMARY}): run `mobilevlm eval BENCHMARK "
            f"--out {folder}` to its end first"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, EvaluationError, "run that benchmark again")
