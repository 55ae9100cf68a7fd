# SPDX-License-Identifier: Apache-2.0
"""The benchmarks by name, in the order of the papers' tables."""

from __future__ import annotations

from pathlib import Path

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.files import check_folder
from mobilevlm_ros.evaluation.benchmarks.gqa import GQA
from mobilevlm_ros.evaluation.benchmarks.mmbench import MMBENCH
from mobilevlm_ros.evaluation.benchmarks.mme import MME
from mobilevlm_ros.evaluation.benchmarks.pope import POPE
from mobilevlm_ros.evaluation.benchmarks.sqa import SQA
from mobilevlm_ros.evaluation.benchmarks.textvqa import TEXTVQA
from mobilevlm_ros.evaluation.benchmarks.types import Benchmark, Dataset

BENCHMARKS: dict[str, Benchmark] = {b.name: b for b in (GQA, SQA, TEXTVQA, POPE, MME, MMBENCH)}


def load(name: str, folder: Path) -> tuple[Benchmark, Dataset]:
    """A benchmark and its folder's questions.

    Raises EvaluationError for a folder of something else (it says what was expected and found), and for files
    that cannot be used.
    """
    benchmark = BENCHMARKS[name]
    check_folder(folder, benchmark.title, benchmark.files, {b.title: b.files for b in BENCHMARKS.values()})
    dataset = benchmark.load(folder)
    if not dataset.questions:
        raise EvaluationError(f"{folder} holds no question of {benchmark.title}")
    return benchmark, dataset
