# SPDX-License-Identifier: Apache-2.0
"""Rotary positions, grouped heads, and the cache."""

from __future__ import annotations

import math

import pytest
import torch

from mobilevlm_ros.errors import ContextOverflow
from mobilevlm_ros.model.config import LanguageConfig
from mobilevlm_ros.model.llama import KVCache, Llama, rotary_tables

CONFIG = LanguageConfig(100, 32, 48, 2, 4, 4, max_position_embeddings=64)


def llama(config: LanguageConfig) -> Llama:
    torch.manual_seed(0)
    return Llama(config).eval()


def inputs(length: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, length, 32, generator=torch.Generator().manual_seed(length))


def test_rotary_angles_are_position_over_powers_of_theta():
    cosine, sine = rotary_tables(CONFIG, torch.tensor([0, 1, 7]))
    assert cosine.shape == (3, 8)
    for index in range(8):
        angle = 7 * 10000.0 ** -((index % 4) / 4)
        assert cosine[2, index] == pytest.approx(math.cos(angle), abs=1e-6)
        assert sine[2, index] == pytest.approx(math.sin(angle), abs=1e-6)


def test_linear_interpolation_divides_positions():
    stretched = LanguageConfig(100, 32, 48, 2, 4, 4, rope_factor=4.0, max_position_embeddings=2048)
    assert stretched.context_length == 8192
    positions = torch.arange(0, 8192, 4)
    for a, b in zip(rotary_tables(stretched, positions), rotary_tables(CONFIG, positions // 4), strict=True):
        assert torch.equal(a, b)


@torch.inference_mode()
def test_interpolation_in_the_model_is_that_of_the_definition():
    plain, stretched = llama(CONFIG), llama(LanguageConfig(**{**vars(CONFIG), "rope_factor": 4.0}))
    x = inputs(12)
    quarters = torch.arange(12) / 4  # positions need not be whole where none of the model's own are used
    torch.testing.assert_close(stretched(x), plain(x, positions=quarters), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(stretched(x), plain(x), atol=1e-3)


@torch.inference_mode()
def test_shared_heads_equal_repeated_ones():
    grouped = llama(LanguageConfig(100, 32, 48, 2, 4, 2))
    full = llama(CONFIG)
    state = grouped.state_dict()
    for key, value in state.items():
        if "k_proj" in key or "v_proj" in key:
            state[key] = value.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(state)
    x = inputs(9, batch=2)
    torch.testing.assert_close(grouped(x), full(x), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_only_relative_positions_matter():
    model, x = llama(CONFIG), inputs(10)
    torch.testing.assert_close(model(x, positions=torch.arange(10) + 17), model(x), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_truncated_cache_forgets_and_a_copy_is_independent():
    model, x = llama(CONFIG), inputs(10)
    cache = KVCache(CONFIG, capacity=16)
    model(x[:, :6], cache=cache)
    fork = cache.copy()
    first = model(x[:, 6:], cache=cache)
    cache.truncate(6)
    assert cache.length == 6
    torch.testing.assert_close(model(x[:, 6:], cache=cache), first, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model(x[:, 6:], cache=fork), first, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model(x)[:, 6:], first, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_copied_prefix_serves_a_batch():
    model, prefix, tails = llama(CONFIG), inputs(5), inputs(4, batch=3)
    cache = KVCache(CONFIG, capacity=9)
    model(prefix, cache=cache)
    batch = cache.copy(3)
    assert (batch.batch, batch.length, batch.capacity) == (3, 5, 9)
    together = model(tails, cache=batch)
    for row in range(3):
        alone = model(torch.cat([prefix, tails[row : row + 1]], dim=1))[:, 5:]
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_impossible_cache_operations_are_refused():
    cache = KVCache(CONFIG, batch=2, capacity=4)
    with pytest.raises(ValueError, match="truncate"):
        cache.truncate(1)
    with pytest.raises(ValueError, match="batch 2"):
        cache.copy(3)
    assert cache.copy(2).batch == 2


@torch.inference_mode()
def test_overflow_is_an_error_that_leaves_the_cache_as_it_was():
    model, cache = llama(CONFIG), KVCache(CONFIG, capacity=8)
    model(inputs(6), cache=cache)
    with pytest.raises(ContextOverflow, match=r"6 \+ 3 .* 8"):
        model(inputs(3), cache=cache)
    assert cache.length == 6
    model(inputs(2), cache=cache)
    assert KVCache(CONFIG).capacity == 64
