# SPDX-License-Identifier: Apache-2.0
"""Several continuations of one prompt give what each gives by itself, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.engine.torch.backend import TorchLanguage
from mobilevlm_ros.errors import ContextOverflow, EngineError
from mobilevlm_ros.export.quantization.precision import DecoderPrecision


@pytest.fixture(params=["tree", "tree-int4", "in-turn", "in-turn-int4", "torch"])
def engine(request, language_model, export) -> LanguageEngine:
    model = language_model(num_key_value_heads=2)
    if request.param == "torch":
        return TorchLanguage(model)
    precision = DecoderPrecision(bits=4 if "int4" in request.param else 32)
    return export(model, precision, tree="tree" in request.param)


@pytest.mark.parametrize("num_logits", [0, 1, 3])
@pytest.mark.parametrize("capacity", [7, 9, 64])  # full, too small for the longest, enough
def test_each_continuation_is_read_as_if_alone(engine, embeddings, num_logits, capacity):
    cache = engine.new_cache(capacity=capacity)
    engine.forward(embeddings(1, 7), cache)
    continuations = [embeddings(1, size, seed=size)[0] for size in (1, 5, 2, 9)]
    given = engine.branch(continuations, cache, num_logits)
    assert (cache.length, cache.capacity) == (7, capacity)
    for tokens, logits in zip(continuations, given, strict=True):
        needs_logits = min(num_logits, len(tokens))
        expected = engine.forward(tokens[None], cache.copy(capacity=64), needs_logits)[0]
        assert logits.shape == (needs_logits, 96)
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_cache_goes_on_afterwards(engine, embeddings):
    cache = engine.new_cache()
    engine.forward(embeddings(1, 4), cache)
    expected = engine.forward(embeddings(1, 3, seed=1), cache.copy(), 3)
    engine.branch([embeddings(1, 6, seed=2)[0]], cache)
    np.testing.assert_allclose(engine.forward(embeddings(1, 3, seed=1), cache, 3), expected, atol=1e-5)


def test_nothing_to_read_is_no_error(engine, embeddings):
    cache = engine.new_cache()
    engine.forward(embeddings(1, 4), cache)
    assert engine.branch([], cache) == []


def test_what_cannot_be_read_is_refused_and_leaves_the_cache(engine, embeddings):
    cache = engine.new_cache()
    engine.forward(embeddings(1, 120), cache)
    with pytest.raises(ContextOverflow, match="120 tokens and 9 more"):
        engine.branch([embeddings(1, 2)[0], embeddings(1, 9)[0]], cache)
    spoilt = embeddings(1, 2)[0]
    spoilt[1, 3] = np.nan
    with pytest.raises(EngineError, match="NaN"):
        engine.branch([embeddings(1, 2)[0], spoilt], cache)
    with pytest.raises(ValueError, match="takes float32"):
        engine.branch([np.zeros((2, 65), np.float32)], cache)
    assert cache.length == 120
    with pytest.raises(ValueError, match="one row"):
        engine.branch([spoilt], cache.copy(batch=2))


@pytest.mark.parametrize("capacity", [7, 128])
def test_branches_that_grow_are_read_as_if_alone(engine, embeddings, capacity):
    prompt = engine.new_cache(capacity=capacity)
    engine.forward(embeddings(1, 7), prompt)
    alone = {branch: prompt.copy(capacity=64) for branch in range(3)}
    common = embeddings(1, 2, seed=1)[0]
    branches = engine.branches(prompt, 60)
    for run, sizes in enumerate(({0: 3, 1: 5, 2: 1}, {0: 1, 2: 1}, {1: 1, 2: 4}, {0: 2})):
        pieces = {branch: embeddings(1, size, seed=10 * run + branch)[0] for branch, size in sizes.items()}
        if not run:
            pieces = {branch: np.concatenate([common, rest]) for branch, rest in pieces.items()}
        given = branches.read(pieces)
        assert given.keys() == pieces.keys()
        for branch, tokens in pieces.items():
            expected = engine.forward(tokens[None], alone[branch])[0]
            np.testing.assert_allclose(given[branch], expected, atol=1e-4)
    assert prompt.length == 7
    expected = engine.forward(embeddings(1, 3, seed=1), prompt.copy(capacity=10))
    if capacity > 7:
        np.testing.assert_array_equal(engine.forward(embeddings(1, 3, seed=1), prompt), expected)


def test_branches_together_may_not_outgrow_the_context(engine, embeddings):
    cache = engine.new_cache(capacity=100)
    engine.forward(embeddings(1, 100), cache)
    with pytest.raises(ContextOverflow, match="100 tokens and 29 more"):
        engine.branches(cache, 29)
    branches = engine.branches(cache, 28)
    branches.read({0: embeddings(1, 20)[0]})
    with pytest.raises(ContextOverflow, match="120 tokens and 9 more"):
        branches.read({0: embeddings(1, 9)[0]})
    assert cache.length == 100
