# SPDX-License-Identifier: Apache-2.0
"""The backend's own rules, on the stand-in; the cache's promises are in test_cache.py for every backend."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.engine.tensorrt import names
from mobilevlm_ros.engine.tensorrt.engine import pieces
from mobilevlm_ros.engine.torch.backend import TorchLanguage
from mobilevlm_ros.errors import DeviceLost, DeviceMemoryError, EngineError


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"num_key_value_heads": 2},
        {"hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 2},  # 80, as the 2.7B model's
        {"rope_factor": 4.0},
        {"tie_word_embeddings": True},
    ],
    ids=str,
)
def test_prompt_and_decoding_equal_the_definition(language_model, trt_language, embeddings, geometry):
    model = language_model(**geometry)
    engine, reference = trt_language(model), TorchLanguage(model)
    inputs = embeddings(1, 30, model.config.language.hidden_size)
    caches = engine.new_cache(), reference.new_cache()
    logits = [e.forward(inputs, c, 30) for e, c in zip((engine, reference), caches)]
    assert relative(*logits) < 5e-3
    for _ in range(20):
        best = np.array([logits[1][0, -1].argmax()])
        assert logits[0][0, -1].argmax() == best[0]
        logits = [e.forward(reference.embed(best)[None], c) for e, c in zip((engine, reference), caches)]
        assert relative(*logits) < 5e-3


def test_a_long_prompt_grows_the_cache_and_is_read_in_pieces(language_model, trt_language, embeddings):
    model = language_model(max_position_embeddings=1024)
    engine, reference = trt_language(model), TorchLanguage(model)
    inputs = embeddings(1, 700)
    cache, expected = engine.new_cache(), reference.forward(inputs, reference.new_cache(), 100)
    start = engine.forward(inputs[:, :200], cache, 0)
    assert start.shape == (1, 0, 96)
    assert cache.rows[0].slot(200).room == 256
    assert relative(engine.forward(inputs[:, 200:], cache, 100), expected) < 5e-3
    assert cache.rows[0].slot(700).room == 1024


def test_decoding_is_recorded_once_per_slot_and_replayed(language_model, trt_language, make_trt, embeddings):
    trt = make_trt("10.3.0")
    engine = trt_language(language_model(), trt=trt)
    inputs = embeddings(1, 12)
    plain = trt_language(language_model(), trt=trt, graphs=False)
    caches = engine.new_cache(), plain.new_cache()
    for step in range(12):
        token = inputs[:, step : step + 1]
        np.testing.assert_array_equal(engine.forward(token, caches[0]), plain.forward(token, caches[1]))
    assert trt.recorder.launches == 11  # all but the first
    assert len(trt.recorder.graphs) == 1
    other = caches[0].copy()  # has a slot of its own, and so a graph of its own
    results = [engine.forward(inputs[:, :1], cache) for cache in (caches[0], other)]
    np.testing.assert_array_equal(*results)
    del other, caches
    gc.collect()
    again = engine.new_cache()  # takes a slot that was used before, with its graph
    engine.forward(inputs[:, :1], again)
    assert len(trt.recorder.graphs) == 1


def test_where_steps_cannot_be_recorded_they_run_plainly(
    language_model, trt_language, make_trt, embeddings, caplog
):
    trt = make_trt("8.6.1")
    trt.cannot_record = True
    engine = trt_language(language_model(), trt=trt)
    reference = TorchLanguage(language_model())
    inputs = embeddings(1, 6)
    caches = engine.new_cache(), reference.new_cache()
    for step in range(6):
        token = inputs[:, step : step + 1]
        results = [e.forward(token, c) for e, c in zip((engine, reference), caches)]
        assert relative(*results) < 5e-3
    assert trt.recorder.launches == 0
    assert caplog.text.count("without a CUDA graph") == 1


def test_memory_stays_flat_over_a_thousand_conversations(language_model, trt_language, cudart, embeddings):
    engine = trt_language(language_model())
    inputs = embeddings(1, 3)

    def converse() -> None:
        cache = engine.new_cache()
        engine.forward(inputs, cache)
        engine.forward(inputs[:, :1], cache.copy())
        # and away with both, as after a cancelled question

    for _ in range(5):
        converse()
    used, live = cudart.stand_in_used(), cudart.stand_in_live()
    for _ in range(1000):
        converse()
    assert (cudart.stand_in_used(), cudart.stand_in_live()) == (used, live)


def test_an_engine_gives_everything_back(language_model, trt_language, cudart, embeddings):
    engine = trt_language(language_model())
    cache = engine.new_cache()
    for _ in range(3):
        engine.forward(embeddings(1, 1), cache)
    assert cudart.stand_in_used() > 0
    del engine, cache
    gc.collect()
    assert (cudart.stand_in_used(), cudart.stand_in_live()) == (0, 0)


def test_a_full_gpu_is_a_typed_error_and_the_engine_goes_on(language_model, trt_language, cudart, embeddings):
    engine = trt_language(language_model())
    inputs = embeddings(1, 3)
    cache = engine.new_cache()
    expected = engine.forward(inputs, cache)
    cudart.stand_in_limit(cudart.stand_in_used())
    with pytest.raises(DeviceMemoryError, match=r"no memory left for 0\.0 MB"):
        cache.copy()
    cudart.stand_in_limit(1 << 40)
    cache.truncate(0)
    np.testing.assert_array_equal(engine.forward(inputs, cache), expected)


def test_a_lost_gpu_is_a_typed_error(language_model, trt_language, cudart, embeddings):
    engine = trt_language(language_model())
    cache = engine.new_cache()
    cudart.stand_in_fail(b"cudaStreamSynchronize", 719)
    with pytest.raises(DeviceLost, match=r"launch failure .* start this process again"):
        engine.forward(embeddings(1, 3), cache)
    assert cache.length == 0


def test_refusals_quote_tensorrt(language_model, trt_language, embeddings):
    engine = trt_language(language_model())
    with pytest.raises(EngineError, match=r"could not take logit_rows of \(65,\): .*is not between"):
        engine._contexts[0].shape({names.LOGIT_ROWS: (65,)})


@given(st.integers(1, 3000), st.data(), st.integers(1, 300))
def test_pieces_cover_every_token_and_every_wanted_logit_once(tokens, data, longest):
    needs_logits = data.draw(st.integers(0, tokens))
    runs = list(pieces(tokens, needs_logits, longest))
    assert [start for start, _, _ in runs] == [0, *(end for _, end, _ in runs[:-1])]
    assert runs[-1][1] == tokens
    assert sum(count for _, _, count in runs) == needs_logits
    for start, end, count in runs:
        assert 0 < end - start <= longest and count <= min(names.MAX_LOGITS, end - start)
        assert count == max(0, end - max(start, tokens - needs_logits))
