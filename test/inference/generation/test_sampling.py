# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.inference.generation.sampling import Sampler, log_softmax
from mobilevlm_ros.inference.types import SamplingParams

LOGITS = np.log(np.array([0.1, 0.5, 0.3, 0.1], np.float32))


def counts(sampler: Sampler, draws: int = 4000) -> np.ndarray:
    return np.bincount([sampler.pick(LOGITS)[0] for _ in range(draws)], minlength=4) / draws


def test_greedy_takes_the_most_probable_and_tells_its_probability() -> None:
    assert Sampler().pick(LOGITS + 7) == (1, pytest.approx(0.5))


def test_sampling_follows_the_distribution() -> None:
    assert counts(Sampler(SamplingParams(temperature=1.0, seed=1))) == pytest.approx(
        [0.1, 0.5, 0.3, 0.1], abs=0.03
    )


def test_temperature_sharpens_and_flattens() -> None:
    sharp, flat = (
        counts(Sampler(SamplingParams(temperature=0.5, seed=1))),
        counts(Sampler(SamplingParams(temperature=5.0, seed=1))),
    )
    assert sharp[1] == pytest.approx(0.25 / 0.36, abs=0.03)
    assert flat.max() - flat.min() < 0.15


def test_top_p_keeps_the_smallest_set_with_that_mass() -> None:
    assert np.flatnonzero(counts(Sampler(SamplingParams(temperature=1.0, top_p=0.5, seed=1)))).tolist() == [1]
    assert np.flatnonzero(counts(Sampler(SamplingParams(temperature=1.0, top_p=0.51, seed=1)))).tolist() == [
        1,
        2,
    ]
    assert np.flatnonzero(counts(Sampler(SamplingParams(temperature=1.0, top_p=1e-9, seed=1)))).tolist() == [
        1
    ]


def test_a_tiny_temperature_is_greedy_and_does_not_overflow() -> None:
    assert counts(Sampler(SamplingParams(temperature=1e-30, seed=1)), 50)[1] == 1


def test_the_same_seed_draws_the_same_tokens() -> None:
    first, second = (
        Sampler(SamplingParams(temperature=1.0, seed=3)),
        Sampler(SamplingParams(temperature=1.0, seed=3)),
    )
    assert [first.pick(LOGITS)[0] for _ in range(20)] == [second.pick(LOGITS)[0] for _ in range(20)]


def test_repetition_penalty_moves_on_from_what_was_said() -> None:
    sampler = Sampler(SamplingParams(repetition_penalty=2.0))
    logits = np.array([0.0, 2.0, 1.5, -1.0], np.float32)
    assert [sampler.pick(logits)[0] for _ in range(3)] == [1, 2, 1]  # 2.0 -> 1.0, then 1.5 -> 0.75
    assert Sampler(SamplingParams(repetition_penalty=2.0)).pick(-logits - 3)[0] == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_engine_error(bad: float) -> None:
    with pytest.raises(EngineError, match="not numbers"):
        Sampler().pick(np.array([0.0, bad, 1.0], np.float32))


def test_an_impossible_token_has_probability_zero() -> None:
    assert np.exp(log_softmax(np.array([0.0, -np.inf], np.float32))).tolist() == [1, 0]
