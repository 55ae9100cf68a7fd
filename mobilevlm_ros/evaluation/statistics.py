# SPDX-License-Identifier: Apache-2.0
"""How sure a score is, and whether one is better than another: bootstrap and McNemar's test."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import EvaluationError

RESAMPLES = 2000
LEVEL = 0.95
_BLOCK = 100  # resamples at once: 100 x 13 000 units are 10 MB


@dataclass(frozen=True)
class Metric:
    """A score as a function of sums, so that it can be computed again over any resample.

    Attributes:
        sums: f64 [U, K], what each unit adds. A unit is what was drawn together: the questions of a picture.
        combine: f64 [..., K] to scores [...].
        units: what a unit is, in the order of the rows: the picture, or the question group.
    """

    sums: NDArray[np.float64]
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    units: tuple[Hashable, ...]


@dataclass(frozen=True)
class Comparison:
    """Whether model B scores higher than model A on the same questions.

    Attributes:
        difference: score of B less score of A.
        interval: of the difference, 95 % (percentile bootstrap over units, both models on the same draws).
        p_value: two-sided, of no difference: twice the share of draws on the other side of 0 (at most 1).
        only_a, only_b: questions that only A, or only B, has right.
        mcnemar: exact two-sided p-value that those two counts are equal.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    only_a: int
    only_b: int
    mcnemar: float


def interval(metric: Metric, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % percentile interval of a score, units being drawn with replacement (Efron, 1979).

    Questions about one picture stay together: they are not independent. None for fewer than two units.
    Deterministic.
    """
    if len(metric.sums) < 2:
        return None
    return _percentiles(np.concatenate([metric.combine(s) for s in _draws(metric.sums, resamples, seed)]))


def compare(
    a: Metric,
    b: Metric,
    right_a: NDArray[np.bool_],
    right_b: NDArray[np.bool_],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap of the difference of two scores over the same units, and McNemar's exact test.

    `right_a` and `right_b` bool [N] say which questions each has right, in one order. Raises EvaluationError
    when the two were not asked the same.
    """
    if a.units != b.units or right_a.shape != right_b.shape:
        raise EvaluationError(
            "the two models were not asked the same questions: compare runs of one benchmark"
        )
    width = a.sums.shape[1]
    both = np.concatenate([a.sums, b.sums], axis=1)
    found = [b.combine(s[:, width:]) - a.combine(s[:, :width]) for s in _draws(both, resamples, seed)]
    differences = np.concatenate(found)
    total = both.sum(0)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    beyond = min(float((differences <= 0).mean()), float((differences >= 0).mean()))
    return Comparison(
        float(b.combine(total[width:]) - a.combine(total[:width])),
        _percentiles(differences),
        min(1.0, 2 * beyond),
        only_a,
        only_b,
        mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: both counts are binomial halves under no difference."""
    total, fewer = only_a + only_b, min(only_a, only_b)
    if not total:
        return 1.0
    tail = term = 1
    for k in range(fewer):  # in whole numbers, which neither overflow nor round
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << total))


def _draws(sums: NDArray[np.float64], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Sums f64 [B, K] over resampled units, in blocks."""
    rng = np.random.default_rng(seed)
    units = len(sums)
    shares = np.full(units, 1 / units)
    for start in range(0, resamples, _BLOCK):
        counts = rng.multinomial(units, shares, size=min(_BLOCK, resamples - start))
        yield counts @ sums


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    edge = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [edge, 100 - edge])
    return float(low), float(high)
