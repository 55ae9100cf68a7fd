# SPDX-License-Identifier: Apache-2.0
"""Position interpolation to 8192 tokens: PyTorch and the exported decoder beside its definition in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobilevlm_ros.errors import ContextOverflow
from mobilevlm_ros.model.mobilevlm import MobileVLM

FACTOR, CONTEXT, HEADS, SIZE = 4.0, 8192, 4, 16
CHECKED = 5  # trailing positions


def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def rotate(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Chen et al. 2023 (arXiv 2306.15595): position m becomes m / factor. x [T, heads, size]."""
    frequencies = 10000.0 ** (-np.arange(0, SIZE, 2) / SIZE)
    angles = (positions / FACTOR)[:, None] * frequencies
    cosine, sine = (np.tile(table(angles), 2)[:, None] for table in (np.cos, np.sin))
    half = SIZE // 2
    return x * cosine + np.concatenate([-x[..., half:], x[..., :half]], -1) * sine


def definition(model: MobileVLM, x: np.ndarray) -> np.ndarray:
    """Logits of the last CHECKED of x [T, H] through one layer, in 64 bits."""
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}
    w = {name.removeprefix("model.layers.0."): array for name, array in state.items()}
    positions = np.arange(len(x))
    normed = rms(x.astype(np.float64), w["input_layernorm.weight"])
    q, k, v = ((normed @ w[f"self_attn.{part}_proj.weight"].T).reshape(len(x), HEADS, SIZE) for part in "qkv")
    q, k = rotate(q, positions)[-CHECKED:], rotate(k, positions)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(SIZE)
    scores[:, positions[None] > positions[-CHECKED:, None]] = -np.inf
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v).reshape(CHECKED, -1)
    y = x[-CHECKED:] + mixed @ w["self_attn.o_proj.weight"].T
    normed = rms(y, w["post_attention_layernorm.weight"])
    gate = normed @ w["mlp.gate_proj.weight"].T
    y = y + (gate / (1 + np.exp(-gate)) * (normed @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    return rms(y, state["model.norm.weight"]) @ state["lm_head.weight"].T


@pytest.fixture
def stretched(language_model) -> MobileVLM:
    return language_model(rope_factor=FACTOR, max_position_embeddings=CONTEXT // 4, num_hidden_layers=1)


@pytest.fixture
def prompt(embeddings) -> np.ndarray:
    return embeddings(1, CONTEXT, seed=3)[0] * 3


def test_pytorch_and_onnx_equal_the_definition(stretched, export, prompt):
    assert stretched.config.language.context_length == CONTEXT
    expected = definition(stretched, prompt)
    tolerance = 1e-4 * np.abs(expected).max()
    engine = export(stretched)
    exported, cache = engine.new_cache(), stretched.new_cache()
    with torch.inference_mode():
        for start in range(0, CONTEXT, 512):
            part = prompt[None, start : start + 512]
            given = engine.forward(part, exported, CHECKED)[0]
            ours = stretched(torch.from_numpy(part), cache=cache)[0, -CHECKED:].numpy()
    np.testing.assert_allclose(ours, expected, atol=tolerance)
    np.testing.assert_allclose(given, expected, atol=tolerance)
    # Without interpolation the same prompt gives other logits: the test can tell.
    assert np.abs(ours - definition_without_interpolation(stretched, prompt)).max() > 100 * tolerance


def definition_without_interpolation(model: MobileVLM, x: np.ndarray) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "FACTOR", 1.0)
        return definition(model, x)


def test_the_token_after_the_last_is_an_overflow(stretched, export, prompt):
    engine = export(stretched)
    assert engine.max_length == CONTEXT
    cache = engine.new_cache()
    for start in range(0, CONTEXT, 1024):
        engine.forward(prompt[None, start : start + 1024], cache, 0)
    assert cache.length == CONTEXT
    for tokens in (1, 7):
        with pytest.raises(ContextOverflow, match=rf"8192 tokens and {tokens} more do not fit 8192"):
            engine.forward(prompt[None, :tokens], cache)
    assert cache.length == CONTEXT
    cache.truncate(CONTEXT - 1)
    assert np.isfinite(engine.forward(prompt[None, -1:], cache)).all()
