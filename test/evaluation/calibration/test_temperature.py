# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.evaluation.calibration.reliability_plot import draw
from mobilevlm_ros.evaluation.calibration.temperature import (
    BINS,
    ScoredAnswer,
    bins,
    calibrated,
    fit,
    quality,
)
from mobilevlm_ros.evaluation.drawing import save
from mobilevlm_ros.inference.choices.calibration import Calibration


def world(temperature: float, count: int = 2000) -> list[ScoredAnswer]:
    """Truths drawn from known probabilities, of which the model reports p^temperature, normalised."""
    rng = np.random.default_rng(0)
    marked = []
    for _ in range(count):
        true = rng.dirichlet(np.full(4, 0.5))
        said = np.maximum(true, 1e-9) ** temperature
        marked.append(ScoredAnswer(tuple(said / said.sum()), int(rng.choice(4, p=true))))
    return marked


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_of_a_world(temperature: float) -> None:
    assert fit(world(temperature)).temperature == pytest.approx(temperature, rel=0.1)


def test_scaling_repairs_an_overconfident_model_and_keeps_its_answers() -> None:
    marked = world(3.0)
    repaired = calibrated(marked[1::2], fit(marked[::2]))
    before, after = quality(marked[1::2]), quality(repaired)
    assert before.ece > 0.15
    assert after.ece < 0.05
    assert after.nll < before.nll
    assert after.brier < before.brier
    assert after.accuracy == before.accuracy


def test_measures_are_those_of_a_calculation_by_hand() -> None:
    found = quality([ScoredAnswer((0.9, 0.1), 0), ScoredAnswer((0.9, 0.1), 1), ScoredAnswer((0.4, 0.6), 1)])
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.confidence == pytest.approx(0.8)
    assert found.ece == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.6 - 1.0)) / 3)
    assert found.nll == pytest.approx(-np.log([0.9, 0.1, 0.6]).mean())
    assert found.brier == pytest.approx((2 * 0.1**2 + 2 * 0.9**2 + 2 * 0.4**2) / 3)


def test_every_answer_falls_in_a_bin() -> None:
    assert sum(b.count for b in bins([ScoredAnswer((1.0, 0.0), 0), ScoredAnswer((0.5, 0.5), 1)])) == 2
    assert len(bins([ScoredAnswer((1.0, 0.0), 0)])) == BINS


def test_a_model_that_is_always_right_gets_a_temperature_within_bounds() -> None:
    assert fit([ScoredAnswer((0.7, 0.3), 0)] * 30).temperature == 0.05
    assert fit([ScoredAnswer((1.0, 0.0), 1)] * 30).temperature == 20.0


def test_too_few_labels_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 20"):
        fit([ScoredAnswer((0.5, 0.5), 0)] * 19)


def test_draws_two_panels(tmp_path: Path) -> None:
    marked = world(2.0, 200)
    picture = draw([("before", marked), ("after", calibrated(marked, Calibration(2.0)))])
    assert picture.shape == (472, 944, 3)
    assert picture.std() > 10
    save(draw([("before", marked)]), tmp_path / "p.png")
    assert cv2.imread(str(tmp_path / "p.png")).shape == (472, 472, 3)
    with pytest.raises(OptionError, match=r"ends in \.png"):
        save(draw([("before", marked)]), tmp_path / "nowhere" / "p.png")
