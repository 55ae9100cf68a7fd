# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.inference.generation.sampling import Sampler, log_softmax
from mobilevlm_ros.inference.types import SamplingParams

LOGITS = np.log(np.array([0.1, 0.5, 0.3, 0.1], np.float32))


def counts(sampler: Sampler, draws: int = 4000) -> np.ndarray:
    return np.bincount([sampler.pick(LOGITS)[0] for _ in range(draws)], minlength=4) / draws


def sampler(**params: float) -> Sampler:
    return Sampler(SamplingParams(**params))


def test_greedy_takes_the_most_probable_and_tells_its_probability() -> None:
    assert Sampler().pick(LOGITS + 7) == (1, pytest.approx(np.log(0.5)), ())


def test_the_most_probable_tokens_are_told_best_first() -> None:
    pick = sampler(logprobs=True, top_logprobs=3, temperature=1.0, seed=1).pick(LOGITS)
    assert [token for token, _ in pick.top] == [1, 2, 0]
    assert [np.exp(logprob) for _, logprob in pick.top] == pytest.approx([0.5, 0.3, 0.1])
    assert dict(pick.top).get(pick.token, np.log(0.1)) == pytest.approx(pick.logprob)


def test_with_a_mask_only_what_it_marks_is_told() -> None:
    mask = np.array([True, False, True, False])
    pick = sampler(logprobs=True, top_logprobs=20).pick(LOGITS, mask)
    assert pick.top == ((2, pytest.approx(np.log(0.75))), (0, pytest.approx(np.log(0.25))))


def test_sampling_follows_the_distribution() -> None:
    assert counts(sampler(temperature=1.0, seed=1)) == pytest.approx([0.1, 0.5, 0.3, 0.1], abs=0.03)


def test_temperature_sharpens_and_flattens() -> None:
    sharp, flat = counts(sampler(temperature=0.5, seed=1)), counts(sampler(temperature=5.0, seed=1))
    assert sharp[1] == pytest.approx(0.25 / 0.36, abs=0.03)
    assert flat.max() - flat.min() < 0.15


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, [1]), (0.51, [1, 2]), (1e-9, [1])])
def test_top_p_keeps_the_smallest_set_with_that_mass(top_p: float, kept: list[int]) -> None:
    assert np.flatnonzero(counts(sampler(temperature=1.0, top_p=top_p, seed=1))).tolist() == kept


def test_a_tiny_temperature_is_greedy_and_does_not_overflow() -> None:
    assert counts(sampler(temperature=1e-30, seed=1), 50)[1] == 1


def test_the_same_seed_draws_the_same_tokens() -> None:
    first, second = sampler(temperature=1.0, seed=3), sampler(temperature=1.0, seed=3)
    assert [first.pick(LOGITS)[0] for _ in range(20)] == [second.pick(LOGITS)[0] for _ in range(20)]


def test_repetition_penalty_moves_on_from_what_was_said() -> None:
    penalised = sampler(repetition_penalty=2.0)
    logits = np.array([0.0, 2.0, 1.5, -1.0], np.float32)
    assert [penalised.pick(logits)[0] for _ in range(3)] == [1, 2, 1]  # 2.0 -> 1.0, then 1.5 -> 0.75
    assert sampler(repetition_penalty=2.0).pick(-logits - 3)[0] == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_engine_error(bad: float) -> None:
    with pytest.raises(EngineError, match="not numbers"):
        Sampler().pick(np.array([0.0, bad, 1.0], np.float32))


def test_an_impossible_token_has_probability_zero() -> None:
    assert np.exp(log_softmax(np.array([0.0, -np.inf], np.float32))).tolist() == [1, 0]
