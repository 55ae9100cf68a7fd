# SPDX-License-Identifier: Apache-2.0
"""The promises of the KV cache and of `forward`, on every backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.engine.torch.backend import TorchLanguage
from mobilevlm_ros.errors import ContextOverflow, EngineError
from mobilevlm_ros.export.quantization.precision import DecoderPrecision

Embeddings = Callable[..., np.ndarray]


HALF = ("onnxruntime-cuda", "tensorrt")
"""Engines that compute in 16 bits: on the CPU here, the first in ONNX Runtime, the second in a stand-in."""


@pytest.fixture(params=["onnxruntime", "onnxruntime-int4", "torch", *HALF])
def engine(request, language_model, export) -> LanguageEngine:
    model = language_model(num_key_value_heads=2)
    if request.param == "torch":
        return TorchLanguage(model)
    if request.param in HALF:
        return request.getfixturevalue({"tensorrt": "trt_language"}.get(request.param, "export_half"))(model)
    return export(model, DecoderPrecision(bits=4 if "int4" in request.param else 32))


@pytest.fixture
def close(request, engine) -> Callable[[np.ndarray, np.ndarray], None]:
    tolerance = 5e-3 if request.node.callspec.params["engine"] in HALF else 2e-5

    def check(actual: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(actual, expected, atol=tolerance * np.abs(expected).max())

    return check


def from_scratch(engine: LanguageEngine, inputs: np.ndarray) -> np.ndarray:
    """Logits of every position of [B, T, H]."""
    return engine.forward(inputs, engine.new_cache(len(inputs)), inputs.shape[1])


@pytest.mark.parametrize("chunks", [(1,) * 12, (5, 7), (1, 10, 1), (11, 1), (3, 1, 1, 7)])
def test_reading_in_pieces_equals_reading_at_once(engine, close, embeddings, chunks):
    inputs = embeddings(1, 12)
    cache = engine.new_cache()
    rows = []
    for size in chunks:
        part = inputs[:, cache.length : cache.length + size]
        rows.append(engine.forward(part, cache, size))
    assert cache.length == 12
    close(np.concatenate(rows, axis=1), from_scratch(engine, inputs))


def test_a_truncated_cache_goes_on_as_if_the_rest_had_never_been(engine, close, embeddings):
    inputs, other = embeddings(1, 12), embeddings(1, 6, seed=1)
    cache = engine.new_cache()
    engine.forward(inputs, cache)
    cache.truncate(7)
    assert cache.length == 7
    close(
        engine.forward(other, cache, 6),
        from_scratch(engine, np.concatenate([inputs[:, :7], other], 1))[:, 7:],
    )
    cache.truncate(0)
    close(engine.forward(inputs, cache, 12), from_scratch(engine, inputs))
    with pytest.raises(ValueError, match="truncate"):
        cache.truncate(13)


def test_a_copy_is_independent(engine, close, embeddings):
    inputs, other = embeddings(1, 9), embeddings(1, 9, seed=1)
    cache = engine.new_cache()
    engine.forward(inputs[:, :4], cache)
    copy = cache.copy(capacity=9)
    assert (copy.batch, copy.length, copy.capacity) == (1, 4, 9)
    engine.forward(other[:, 4:], cache)
    close(engine.forward(inputs[:, 4:], copy, 5), from_scratch(engine, inputs)[:, 4:])
    assert copy.nbytes < cache.nbytes
    with pytest.raises(ValueError, match="capacity"):
        cache.copy(capacity=8)


@pytest.mark.parametrize("new", [1, 2, 3, 8])  # one token; fewer tokens than rows; as many; more
@pytest.mark.parametrize("num_logits", [1, 2])
def test_rows_on_a_shared_prefix_equal_separate_runs(engine, close, embeddings, new, num_logits):
    num_logits = min(num_logits, new)
    prefix, tails = embeddings(1, 6), embeddings(3, new, seed=1)
    cache = engine.new_cache()
    engine.forward(prefix, cache)
    many = cache.copy(batch=3)
    assert (many.batch, many.length) == (3, 6)
    logits = engine.forward(tails, many, num_logits)
    more = engine.forward(tails[:, :1], many)
    for row in range(3):
        whole = np.concatenate([prefix, tails[row : row + 1], tails[row : row + 1, :1]], axis=1)
        expected = from_scratch(engine, whole)
        close(logits[row : row + 1], expected[:, -1 - num_logits : -1])
        close(more[row : row + 1], expected[:, -1:])
    with pytest.raises(ValueError, match="repeat"):
        many.copy(batch=2)


def test_a_batch_from_the_start_equals_separate_runs(engine, close, embeddings):
    inputs = embeddings(3, 5)
    together = from_scratch(engine, inputs)
    for row in range(3):
        close(together[row : row + 1], from_scratch(engine, inputs[row : row + 1]))


def test_logits_are_of_the_last_positions(engine, close, embeddings):
    inputs = embeddings(1, 6)
    everything = from_scratch(engine, inputs)
    assert engine.forward(inputs, engine.new_cache()).shape == (1, 1, 96)
    close(engine.forward(inputs, engine.new_cache(), 2), everything[:, -2:])
    cache = engine.new_cache()
    assert engine.forward(inputs, cache, 0).shape == (1, 0, 96)
    assert cache.length == 6


def test_overflow_is_refused_and_leaves_the_cache(engine, close, embeddings):
    inputs = embeddings(1, 9)
    cache = engine.new_cache(capacity=8)
    engine.forward(inputs[:, :6], cache)
    with pytest.raises(ContextOverflow, match="6 tokens and 3 more do not fit 8"):
        engine.forward(inputs[:, 6:], cache)
    assert cache.length == 6
    close(engine.forward(inputs[:, 6:8], cache, 2), from_scratch(engine, inputs)[:, 6:8])
    with pytest.raises(ValueError, match="context of 128"):
        engine.new_cache(capacity=129)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_is_refused_and_the_engine_goes_on(engine, close, embeddings, bad):
    inputs = embeddings(1, 4)
    spoilt = inputs.copy()
    spoilt[0, 2, 5] = bad
    cache = engine.new_cache()
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine.forward(spoilt, cache)
    assert cache.length == 0
    close(engine.forward(inputs, cache, 4), from_scratch(engine, inputs))


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_damaged_model_is_found_by_its_logits(language_model, export, embeddings, backend):
    model = language_model()
    with torch.no_grad():
        model.lm_head.weight[7, 7] = float("nan")
    engine = TorchLanguage(model) if backend == "torch" else export(model)
    cache = engine.new_cache()
    with pytest.raises(EngineError, match="decoder's output holds NaN"):
        engine.forward(embeddings(1, 4), cache)
    assert cache.length == 0


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((1, 3, 65), np.float32),
        np.zeros((1, 3, 64), np.float64),
        np.zeros((2, 3, 64), np.float32),
        np.zeros((3, 64), np.float32),
        np.zeros((1, 0, 64), np.float32),
    ],
    ids=["width", "dtype", "batch", "rank", "empty"],
)
def test_wrong_shapes_are_refused(engine, inputs):
    with pytest.raises(ValueError, match=r"takes float32|logits of 0 tokens"):
        engine.forward(inputs, engine.new_cache())


def test_more_logits_than_tokens_are_refused(engine, embeddings):
    with pytest.raises(ValueError, match="4 logits of 3 tokens"):
        engine.forward(embeddings(1, 3), engine.new_cache(), 4)


def test_embedding_looks_rows_up(engine):
    ids = np.array([3, 0, 95, 3])
    rows = engine.embed(ids)
    assert rows.shape == (4, 64)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0], rows[3])
    assert engine.embed(np.zeros(0, np.int64)).shape == (0, 64)
    for wrong in ([96], [-1], [-200]):
        with pytest.raises(ValueError, match="vocabulary"):
            engine.embed(np.array(wrong))


def test_caches_of_different_backends_do_not_mix(language_model, export, embeddings):
    model = language_model()
    graph, torch_engine = export(model), TorchLanguage(model)
    with pytest.raises(ValueError, match="another backend"):
        graph.forward(embeddings(1, 2), torch_engine.new_cache())
    with pytest.raises(ValueError, match="another backend"):
        torch_engine.forward(embeddings(1, 2), graph.new_cache())
