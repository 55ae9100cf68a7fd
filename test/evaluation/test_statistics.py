# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.statistics import Metric, compare, interval, mcnemar


def mean_of(values: np.ndarray) -> Metric:
    sums = np.stack([values, np.ones_like(values)], axis=1).astype(float)
    return Metric(sums, lambda s: 100 * s[..., 0] / s[..., 1], tuple(range(len(values))))


def test_interval_of_a_share_is_the_binomial_one() -> None:
    right = np.zeros(1000)
    right[:700] = 1
    found = interval(mean_of(right))
    assert found is not None
    half = 1.96 * 100 * math.sqrt(0.7 * 0.3 / 1000)
    assert found == (pytest.approx(70 - half, abs=0.4), pytest.approx(70 + half, abs=0.4))
    assert interval(mean_of(right)) == found, "the same figures every time"
    assert interval(mean_of(right[:1])) is None


def test_questions_about_one_picture_are_not_independent() -> None:
    """Ten questions a picture, all right or all wrong: the interval is that of the pictures."""
    pictures = (np.arange(100) < 70).astype(float)
    clustered = Metric(
        np.stack([10 * pictures, np.full(100, 10.0)], 1), mean_of(pictures).combine, (*range(100),)
    )
    assert interval(clustered) == pytest.approx(interval(mean_of(pictures)))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    # scipy.stats.binomtest(min, total, 0.5).pvalue
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (1, 9, 0.021484375),
        (30, 60, 0.0020602656809630745),
        (400, 700, 1.1735888055606002e-19),
    ],
)
def test_mcnemar(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, rel=1e-12)


def test_compare_knows_better_from_equal() -> None:
    rng = np.random.default_rng(3)
    a = rng.random(2000) < 0.6
    better = a | (rng.random(2000) < 0.1)
    found = compare(mean_of(a), mean_of(better), a, better)
    assert found.difference > 0 and found.interval[0] > 0 and found.p_value < 0.01
    assert found.only_a == 0 and found.only_b == int((better & ~a).sum())
    same = compare(mean_of(a), mean_of(a), a, a)
    assert (same.difference, same.interval, same.p_value, same.mcnemar) == (0.0, (0.0, 0.0), 1.0, 1.0)
    with pytest.raises(EvaluationError, match="not asked the same"):
        compare(mean_of(a), mean_of(a[:-1]), a, a[:-1])
