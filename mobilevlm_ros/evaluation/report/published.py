# SPDX-License-Identifier: Apache-2.0
"""Published scores, and the average that the MobileVLM papers print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COLUMNS = ("gqa", "sqa", "textvqa", "pope", "mme", "mmbench")
"""In the papers' order: GQA, ScienceQA with pictures, TextVQA, POPE, MME perception, MMBench-dev."""


@dataclass(frozen=True)
class Row:
    """Scores of one model; a benchmark that was not run is missing.

    Attributes:
        name: of the model.
        scores: benchmark to its headline figure.
        source: where the figures come from.
    """

    name: str
    scores: Mapping[str, float]
    source: str

    def average(self) -> float | None:
        """Mean over the six, MME divided by 20 as in the papers; None unless all six are there."""
        if not all(name in self.scores for name in COLUMNS):
            return None
        return sum(self.scores[n] / (20 if n == "mme" else 1) for n in COLUMNS) / len(COLUMNS)


def _row(name: str, source: str, *scores: float) -> Row:
    return Row(name, dict(zip(COLUMNS, scores, strict=True)), source)


_README = "MobileVLM README, model zoo"

PUBLISHED = (
    _row("MobileVLM 1.7B", _README, 56.1, 57.3, 41.5, 84.5, 1196.2, 53.2),
    _row("MobileVLM V2 1.7B", _README, 59.3, 66.7, 52.1, 84.3, 1302.8, 57.7),
    _row("MobileVLM 3B", _README, 59.0, 61.2, 47.5, 84.9, 1288.9, 59.6),
    _row("MobileVLM V2 3B", _README, 61.1, 70.0, 57.5, 84.7, 1440.5, 63.2),
    _row("MobileVLM V2 7B", _README, 62.6, 74.8, 62.3, 85.3, 1560.7, 69.2),
    _row("LLaVA-1.5 7B", "arXiv 2312.16886, table 4", 62.0, 66.8, 58.2, 85.9, 1510.7, 64.3),
)
"""The V1 paper's own table has ScienceQA 54.7 and 61.0 (arXiv 2312.16886, table 4); these are of the released
checkpoints."""

PUBLISHED_AVERAGES = {
    "MobileVLM 1.7B": 58.7,
    "MobileVLM V2 1.7B": 64.2,
    "MobileVLM 3B": 62.8,
    "MobileVLM V2 3B": 68.1,
    "MobileVLM V2 7B": 72.1,
}
"""As the README prints them. The 7B's own scores give 72.04: they were averaged before they were rounded."""
