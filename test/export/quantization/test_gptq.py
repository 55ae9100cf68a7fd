# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.export.quantization.gptq import gptq
from mobilevlm_ros.export.quantization.round_to_nearest import QuantizedMatrix, quantize


def correlated(count: int, columns: int, seed: int) -> np.ndarray:
    """Inputs f32 [count, columns] as a network sees them: few directions carry most of the energy."""
    mix = (
        np.random.default_rng(0).normal(size=(columns, columns)) * np.arange(1, columns + 1)[:, None] ** -0.7
    )
    return (np.random.default_rng(seed).normal(size=(count, columns)) @ mix).astype(np.float32)


def weights(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.02, (rows, columns)).astype(np.float32)


def gram(inputs: np.ndarray) -> np.ndarray:
    return inputs.T.astype(np.float64) @ inputs


def output_error(matrix: QuantizedMatrix, weight: np.ndarray, inputs: np.ndarray) -> float:
    return float(np.square(inputs @ (matrix.dequantize() - weight).T).mean())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [32, 128])
@pytest.mark.parametrize("columns", [160, 256, 300])
def test_outputs_change_less_than_by_rounding(bits, block_size, columns):
    weight = weights(48, columns)
    matrix = gptq(weight, gram(correlated(2000, columns, 1)), bits, block_size)
    unseen = correlated(500, columns, 2)
    rounded = quantize(weight, bits, block_size)
    # Seen here: a seventh to a fourth.
    assert output_error(matrix, weight, unseen) < 0.5 * output_error(rounded, weight, unseen)
    assert (matrix.packed.shape, matrix.scales.shape) == (rounded.packed.shape, rounded.scales.shape)
    assert (matrix.shape, matrix.bits, matrix.block_size) == ((48, columns), bits, block_size)


def test_columns_after_the_last_are_zero():
    matrix = gptq(weights(5, 40), gram(correlated(200, 40, 1)), 4, 32)
    assert (matrix.packed[:, 1, 4:] == 0x88).all()  # two levels of 0 in each byte


def test_without_correlations_values_are_rounded_to_nearest():
    weight = weights(16, 96)
    matrix = gptq(weight, np.eye(96), 4, 32)
    np.testing.assert_array_equal(matrix.packed, quantize(weight, 4, 32).packed)


def test_inputs_that_are_always_zero_do_no_harm():
    weight = weights(16, 64)
    inputs = correlated(200, 64, 1)
    inputs[:, :40] = 0
    matrix = gptq(weight, gram(inputs))
    assert np.abs(matrix.dequantize() - weight).max() < 0.02
    np.testing.assert_array_equal(gptq(weight, np.zeros((64, 64))).packed, quantize(weight).packed)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 70), st.integers(1, 30), st.sampled_from([4, 8]), st.integers(0, 99))
def test_any_inputs_give_finite_weights_and_always_the_same(rows, columns, count, bits, seed):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, columns)).astype(np.float32)
    inputs = gram(rng.normal(size=(count, columns)).astype(np.float32) * 10 ** rng.uniform(-6, 3))
    first, second = (gptq(weight, inputs, bits, 16) for _ in range(2))
    assert np.isfinite(first.dequantize()).all()
    np.testing.assert_array_equal(first.packed, second.packed)
    np.testing.assert_array_equal(first.scales, second.scales)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="bits must be"):
        gptq(weights(4, 32), np.eye(32), bits=3)
    with pytest.raises(ValueError, match="not finite"):
        gptq(weights(4, 32), np.full((32, 32), np.nan))
    with pytest.raises(ValueError, match="not positive definite"):
        gptq(weights(4, 32), np.eye(32) - 2 * np.ones((32, 32)) + 2 * np.eye(32))
