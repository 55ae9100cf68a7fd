# SPDX-License-Identifier: Apache-2.0
"""The model in 32-bit floats, one layer in memory at a time: what a bundle is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobilevlm_ros.checkpoints.checkpoint import TOWER_PREFIX
from mobilevlm_ros.export.layer_loader import Weights, load_module
from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt
from mobilevlm_ros.model import clip, llama
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.projector import build_projector
from mobilevlm_ros.processing.image import normalize


@torch.inference_mode()
def encode_images(
    weights: Weights,
    config: MobileVLMConfig,
    pixels: NDArray[np.uint8],
    on_layer: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Image tokens f32 [B, N, H] of pictures u8 [B, S, S, 3]. `on_layer` is called after each tower layer."""
    tower = f"{TOWER_PREFIX}vision_model"
    vision = config.vision
    embeddings = load_module(lambda: clip.Embeddings(vision), weights, f"{tower}.embeddings")
    norm = load_module(
        lambda: nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps), weights, f"{tower}.pre_layrnorm"
    )
    states = [norm(embeddings(torch.from_numpy(normalize(picture))[None])) for picture in pixels]
    for index in range(config.num_vision_layers):
        layer = load_module(lambda: clip.Layer(vision), weights, f"{tower}.encoder.layers.{index}")
        states = [layer(x) for x in states]
        on_layer()
    projector = load_module(lambda: build_projector(config), weights, "model.mm_projector")
    first = 1 if config.select_feature == "patch" else 0
    tokens: NDArray[np.float32] = torch.cat([projector(x[:, first:]) for x in states]).numpy()
    return tokens


@torch.inference_mode()
def read_logits(
    weights: Weights,
    config: LanguageConfig,
    prompts: Sequence[CalibrationPrompt],
    on_layer: Callable[[], None] = lambda: None,
) -> list[NDArray[np.float32]]:
    """Logits f32 [tail, V] of each prompt's last `tail` positions. `on_layer` is called after each layer."""
    states: list[Tensor] = [torch.from_numpy(prompt.embeddings)[None] for prompt in prompts]
    for index in range(config.num_hidden_layers):
        layer = load_module(partial(llama.Layer, config, index), weights, f"model.layers.{index}")
        for i, x in enumerate(states):
            states[i] = layer(x, llama.rotary_tables(config, torch.arange(x.shape[1])), None, None)
        on_layer()
    norm = load_module(lambda: nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps), weights, "model.norm")
    stored = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    head = load_module(lambda: nn.Linear(config.hidden_size, config.vocab_size, bias=False), weights, stored)
    return [head(norm(x[0, -prompt.tail :])).numpy() for x, prompt in zip(states, prompts)]
