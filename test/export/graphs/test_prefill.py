# SPDX-License-Identifier: Apache-2.0
"""The optional 8-bit graph that reads prompts, beside the decoder that it fills the cache for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mobilevlm_ros.engine.bundle import PREFILL, Bundle, Manifest
from mobilevlm_ros.engine.onnxruntime import backend as ort
from mobilevlm_ros.engine.onnxruntime.language import LEAST_PREFILL, OrtLanguage
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.graphs.decoder import export_decoder
from mobilevlm_ros.export.graphs.prefill import export_prefill
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.model.mobilevlm import MobileVLM

LONG = LEAST_PREFILL + 12


@pytest.fixture
def engines(tmp_path: Path) -> Callable[[MobileVLM], tuple[OrtLanguage, OrtLanguage]]:
    """Makes engines of a model in f32, the second with a prefill graph."""

    def make(model: MobileVLM) -> tuple[OrtLanguage, OrtLanguage]:
        state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
        config, options = model.config.language, ort.session_options(threads=1)
        export_decoder(state.__getitem__, config, tmp_path / "d.onnx", DecoderPrecision(bits=32))
        export_prefill(state.__getitem__, config, tmp_path / "p.onnx")
        decoder, prefill = (onnxruntime.InferenceSession(tmp_path / f"{n}.onnx", options) for n in "dp")
        table, manifest = state["model.embed_tokens.weight"], Manifest.describe(model.config, "test")
        plain = OrtLanguage(decoder, table, manifest)
        return plain, OrtLanguage(decoder, table, manifest, prefill)

    return make


def test_long_prompts_are_read_in_8_bits_into_the_same_cache(engines, language_model, embeddings):
    plain, fast = engines(language_model(num_key_value_heads=2))
    prompt, rest = embeddings(1, LONG), embeddings(1, 3, seed=1)
    caches = [engine.new_cache() for engine in (plain, fast)]
    for tokens, count in ((prompt, 2), (rest, 3)):  # the second is short: decoder's work on the same cache
        exact, given = (
            engine.forward(tokens, cache, count) for engine, cache in zip((plain, fast), caches, strict=True)
        )
        assert given.shape == exact.shape
        difference = np.abs(given - exact).max() / exact.std()
        assert 0 < difference < 0.15
    assert [cache.length for cache in caches] == [LONG + 3] * 2


def test_a_token_with_huge_activations_does_not_blur_the_others(engines, language_model, embeddings):
    """LLaMA's first token is like that; one scale for all tokens would round the others away."""
    model = language_model()
    plain, fast = engines(model)
    prompt = embeddings(1, LONG)
    prompt[0, 0] *= 300
    exact, given = (engine.forward(prompt, engine.new_cache()) for engine in (plain, fast))
    assert np.abs(given - exact).max() / exact.std() < 0.15


def test_only_the_cache_wanted(engines, language_model, embeddings):
    _, fast = engines(language_model())
    cache = fast.new_cache()
    assert fast.forward(embeddings(1, LONG), cache, 0).shape == (1, 0, 96)
    assert cache.length == LONG


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize(
    ("damaged", "count"),
    [
        ("model.layers.0.mlp.down_proj.weight", 0),
        ("model.layers.0.mlp.down_proj.weight", 1),
        ("model.layers.0.input_layernorm.weight", 0),
        ("model.layers.0.input_layernorm.weight", 1),
        ("lm_head.weight", 1),
    ],
)
def test_damage_is_found_and_leaves_the_cache(engines, language_model, embeddings, damaged, count):
    model = language_model()
    with torch.no_grad():
        model.get_parameter(damaged)[3] = float("nan")
    _, fast = engines(model)
    cache = fast.new_cache()
    with pytest.raises(EngineError, match="holds NaN"):
        fast.forward(embeddings(1, LONG), cache, count)
    assert cache.length == 0


def test_a_bundle_with_a_prefill_graph(tiny_checkpoint: Path, tmp_path: Path):
    bundle = build_bundle(tiny_checkpoint, tmp_path / "b", BuildOptions(fast_prefill=True))
    assert PREFILL in bundle.manifest.files
    assert bundle.manifest.precision["prefill"] == "int8"
    language = ort.load_language(Bundle.open(bundle.path), threads=1)
    ids = np.arange(LONG) % language.vocab_size
    assert language.forward(language.embed(ids)[None], language.new_cache()).shape[:2] == (1, 1)
