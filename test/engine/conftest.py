# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, bundles and engines that the engine's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mobilevlm_ros.engine.build import build_bundle
from mobilevlm_ros.engine.bundle import Manifest
from mobilevlm_ros.engine.export_decoder import DecoderPrecision, export_decoder
from mobilevlm_ros.engine.ort import OrtLanguage, session_options
from mobilevlm_ros.engine.random_checkpoint import CONFIGS, write_random_checkpoint
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM

PARITY = Path(__file__).parents[1] / "data" / "parity"
TOKENIZER = PARITY / "ckpt" / "tiny-ldpnet" / "tokenizer.model"
FP32 = DecoderPrecision(bits=32)


@pytest.fixture(scope="session")
def parity() -> Path:
    """Reference checkpoints and outputs."""
    return PARITY


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a few kilobytes, 48-pixel images."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_random_checkpoint(CONFIGS["tiny"], path, TOKENIZER, dtype=torch.float32)
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 4-bit bundle of `tiny_checkpoint`; do not change it."""
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    build_bundle(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="session")
def parity_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes (once) the f32 bundle of a checkpoint whose reference outputs are known."""
    made: dict[str, Path] = {}

    def make(checkpoint: str) -> Path:
        if checkpoint not in made:
            made[checkpoint] = tmp_path_factory.mktemp("parity") / checkpoint
            build_bundle(PARITY / "ckpt" / checkpoint, made[checkpoint], precision=FP32, vision_store="fp32")
        return made[checkpoint]

    return make


@pytest.fixture(scope="session")
def language_model() -> Callable[..., MobileVLM]:
    """Makes a MobileVLM with random weights whose language model has the given geometry."""

    def make(**geometry: float) -> MobileVLM:
        values = {
            "vocab_size": 96,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128,
            **geometry,
        }
        language = LanguageConfig(**values)  # type: ignore[arg-type]
        torch.manual_seed(1)
        model = MobileVLM(
            MobileVLMConfig(vision=CONFIGS["tiny"].vision, language=language, projector_type="linear")
        )
        model.initialize(std=0.1)
        return model.eval()

    return make


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., OrtLanguage]:
    """Makes an ONNX Runtime engine of a model's decoder."""

    def make(model: MobileVLM, precision: DecoderPrecision = FP32) -> OrtLanguage:
        state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
        path = tmp_path / "decoder.onnx"
        export_decoder(state.__getitem__, model.config.language, path, precision)
        session = onnxruntime.InferenceSession(path, session_options(threads=1))
        table = state["model.embed_tokens.weight"]
        return OrtLanguage(session, table, Manifest.describe(model.config, "test"))

    return make


@pytest.fixture(scope="session")
def embeddings() -> Callable[..., np.ndarray]:
    """Makes random embeddings f32 [batch, tokens, hidden_size] of deviation 0.5."""

    def make(batch: int, tokens: int, hidden_size: int = 64, seed: int = 0) -> np.ndarray:
        shape = (batch, tokens, hidden_size)
        return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)

    return make
