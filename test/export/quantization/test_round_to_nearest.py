# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilevlm_ros.export.graphs.onnx_writer import CONTRIB, GraphWriter
from mobilevlm_ros.export.quantization.round_to_nearest import quantize


def weights(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows * columns).normal(0, 0.02, (rows, columns)).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [16, 32, 128])
@pytest.mark.parametrize(("rows", "columns"), [(192, 192), (40, 80), (64, 176)])
def test_onnx_runtime_multiplies_with_the_dequantised_matrix(tmp_path, bits, block_size, rows, columns):
    matrix = quantize(weights(rows, columns), bits, block_size)
    with GraphWriter(tmp_path / "m.onnx") as graph:
        x = graph.input("x", np.float32, ["batch", columns])
        packed = graph.constant("packed", matrix.packed)
        scales = graph.constant("scales", matrix.scales.reshape(-1).astype(np.float32))
        attributes = {"N": rows, "K": columns, "bits": bits, "block_size": block_size, "accuracy_level": 0}
        graph.node("MatMulNBits", [x, packed, scales], "y", domain=CONTRIB, **attributes)
        graph.output("y", np.float32, ["batch", rows])
        graph.save("m")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    inputs = np.random.default_rng(0).normal(size=(5, columns)).astype(np.float32)
    expected = inputs @ matrix.dequantize().T
    np.testing.assert_allclose(session.run(None, {"x": inputs})[0], expected, atol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_matrix_that_fits_the_levels_is_kept_exactly(bits):
    half = 2 ** (bits - 1)
    levels = np.random.default_rng(0).integers(-half, half, (6, 64)).astype(np.float32)
    levels[:, ::32] = -half  # each block uses its whole range, so that the scale is determined
    np.testing.assert_array_equal(quantize(levels * 0.25, bits, 32).dequantize(), levels * 0.25)


def test_choosing_scales_beats_scaling_to_the_extreme():
    weight = weights(256, 1024)
    blocks = weight.reshape(256, -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / 7
    plain = np.clip(np.rint(blocks / scale), -8, 7) * scale
    error = ((quantize(weight, 4, 32).dequantize() - weight) ** 2).mean()
    assert error < 0.85 * ((plain - blocks) ** 2).mean()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 70)),
        elements=st.floats(-8, 8, width=32),
    ),
    st.sampled_from([4, 8]),
    st.sampled_from([16, 32]),
)
def test_every_value_is_within_a_step_of_its_block(weight, bits, block_size):
    matrix = quantize(weight, bits, block_size)
    restored = matrix.dequantize()
    assert restored.shape == weight.shape
    assert matrix.packed.shape == (len(weight), -(-weight.shape[1] // block_size), block_size * bits // 8)
    # The search never does worse, over a block, than rounding to plain steps of the extreme.
    for start in range(0, weight.shape[1], block_size):
        part = slice(start, start + block_size)
        error = np.square(restored[:, part] - weight[:, part], dtype=np.float64).sum(1)
        step = np.abs(weight[:, part]).max(1) / (2 ** (bits - 1) - 1)
        assert (error <= block_size * (0.51 * step) ** 2 + 1e-6).all()


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="bits must be"):
        quantize(weights(4, 32), bits=3)
    with pytest.raises(ValueError, match="block_size"):
        quantize(weights(4, 32), block_size=48)
