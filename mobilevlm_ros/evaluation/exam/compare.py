# SPDX-License-Identifier: Apache-2.0
"""Two models' answers to one exam, compared question by question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import entry, lines
from mobilevlm_ros.evaluation.statistics import Comparison, Metric, compare


def compare_exams(a: Path, b: Path) -> Comparison:
    """From the answers files that `mobilevlm eval vqa --out` writes. Raises EvaluationError."""
    first, second = _credits(a), _credits(b)
    if first.keys() != second.keys():
        only = sorted(set(first) ^ set(second))
        raise EvaluationError(
            f"{a} and {b} answer different questions ({len(only)}, first: {only[0]!r}): "
            "compare one exam's files"
        )
    second = {key: second[key] for key in first}
    right = [np.array([credit >= 0.5 for _, credit in part.values()]) for part in (first, second)]
    return compare(_metric(first), _metric(second), right[0], right[1])


def _credits(path: Path) -> dict[str, tuple[str, float]]:
    """Question id to (picture, credit)."""
    found: dict[str, tuple[str, float]] = {}
    for number, line in lines(path):
        where = f"{path}, line {number}"
        credit: Any = entry(line, "credit", (int, float), where)
        found[str(entry(line, "id", (str, int), where))] = (entry(line, "image", str, where), float(credit))
    if not found:
        raise EvaluationError(f"{path} holds no answers: name the answers.jsonl of an exam")
    return found


def _metric(credits: dict[str, tuple[str, float]]) -> Metric:
    units: dict[str, list[float]] = {}
    for image, credit in credits.values():
        sums = units.setdefault(image, [0.0, 0.0])
        sums[0] += credit
        sums[1] += 1
    return Metric(np.array(list(units.values())), lambda s: 100 * s[..., 0] / s[..., 1].clip(1), tuple(units))
