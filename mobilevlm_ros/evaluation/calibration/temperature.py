# SPDX-License-Identifier: Apache-2.0
"""Fits a temperature on labelled answers and measures what it is worth (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.choices.calibration import COLDEST, HOTTEST, Calibration

BINS = 15
"""Of equal width, as in the paper."""

LEAST = 20
"""Labelled questions below which a temperature would be noise."""

_FLOOR = 1e-12  # of a probability inside a logarithm


@dataclass(frozen=True)
class ScoredAnswer:
    """A question's choices as the model weighed them, uncalibrated, and which of them is true."""

    probabilities: tuple[float, ...]
    truth: int


@dataclass(frozen=True)
class CalibrationQuality:
    """How good probabilities are. Lower is better, but for accuracy.

    Attributes:
        questions: how many were asked.
        accuracy: share of right answers, 0 to 1.
        confidence: mean probability of the answer given; equal to accuracy where it means what it says.
        ece: expected calibration error, 0 to 1: mean distance of confidence and accuracy over the bins.
        nll: mean negative log-likelihood of the truth, nats.
        brier: mean squared distance from the truth's one-hot vector, 0 to 2.
    """

    questions: int
    accuracy: float
    confidence: float
    ece: float
    nll: float
    brier: float


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence: their number, mean confidence and accuracy."""

    count: int
    confidence: float
    accuracy: float


def bins(marked: Sequence[ScoredAnswer]) -> list[Bin]:
    """The answers in BINS bins of confidence; empty ones have 0 throughout."""
    sure = np.array([max(m.probabilities) for m in marked])
    right = np.array([int(np.argmax(m.probabilities)) == m.truth for m in marked])
    index = np.minimum((sure * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        inside = index == number
        count = int(inside.sum())
        found.append(
            Bin(count, float(sure[inside].mean()), float(right[inside].mean())) if count else Bin(0, 0.0, 0.0)
        )
    return found


def quality(marked: Sequence[ScoredAnswer]) -> CalibrationQuality:
    """The measures of at least one answer."""
    table = bins(marked)
    total = len(marked)
    return CalibrationQuality(
        questions=total,
        accuracy=sum(b.count * b.accuracy for b in table) / total,
        confidence=sum(b.count * b.confidence for b in table) / total,
        ece=sum(b.count * abs(b.confidence - b.accuracy) for b in table) / total,
        nll=_nll(_logs(marked), 1.0),
        brier=float(np.mean([_brier(m) for m in marked])),
    )


def calibrated(marked: Sequence[ScoredAnswer], calibration: Calibration) -> list[ScoredAnswer]:
    """The same answers with rescaled probabilities."""
    return [ScoredAnswer(calibration.choices(m.probabilities), m.truth) for m in marked]


def fit(marked: Sequence[ScoredAnswer], labels: str = "") -> Calibration:
    """The temperature with the least NLL, by golden section on its inverse, in which the NLL is convex.

    Raises OptionError for fewer than LEAST answers.
    """
    if len(marked) < LEAST:
        raise OptionError(f"{len(marked)} labelled questions are too few to fit on: give at least {LEAST}")
    logs = _logs(marked)
    low, high, ratio = 1 / HOTTEST, 1 / COLDEST, (math.sqrt(5) - 1) / 2
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    costs = [_nll(logs, inverse) for inverse in inner]
    while high - low > 1e-9:
        if costs[0] <= costs[1]:
            high, inner[1], costs[1] = inner[1], inner[0], costs[0]
            inner[0] = high - ratio * (high - low)
            costs[0] = _nll(logs, inner[0])
        else:
            low, inner[0], costs[0] = inner[0], inner[1], costs[1]
            inner[1] = low + ratio * (high - low)
            costs[1] = _nll(logs, inner[1])
    temperature = min(max(2 / (low + high), COLDEST), HOTTEST)
    return Calibration(round(temperature, 4), len(marked), labels)


def _logs(marked: Sequence[ScoredAnswer]) -> NDArray[np.float64]:
    """Log-probabilities f64[N, C], the truth's first; -inf where a question has fewer choices."""
    table = np.full((len(marked), max(len(m.probabilities) for m in marked)), -np.inf)
    for row, m in zip(table, marked, strict=True):
        logs = np.log(np.maximum(m.probabilities, _FLOOR))
        row[: len(logs)] = logs
        row[0], row[m.truth] = row[m.truth], row[0]
    return table


def _nll(logs: NDArray[np.float64], inverse: float) -> float:
    """Mean NLL of the truths, in nats, with log-probabilities multiplied by `inverse`."""
    scaled = logs * inverse
    peak = scaled.max(axis=1)
    total = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
    return float((total - scaled[:, 0]).mean())


def _brier(marked: ScoredAnswer) -> float:
    truth: NDArray[np.float64] = np.zeros(len(marked.probabilities))
    truth[marked.truth] = 1
    return float(((np.asarray(marked.probabilities) - truth) ** 2).sum())
