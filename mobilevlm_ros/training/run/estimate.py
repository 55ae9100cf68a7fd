# SPDX-License-Identifier: Apache-2.0
"""How large a run is, before it starts: parameters and memory, counted on PyTorch's meta device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.training.objective import LanguageModel
from mobilevlm_ros.training.recipe import Recipe
from mobilevlm_ros.training.trainer import choose_trained


@dataclass(frozen=True)
class Size:
    """Parameters of each kind. `adapters` and `projector` are those that train."""

    total: int
    trained: int
    language: int
    adapters: int
    projector: int

    def describe(self) -> str:
        """One line for people."""
        text = f"{self.total:,} parameters, of which {self.trained:,} train"
        if self.adapters:
            share = 100 * self.adapters / self.language
            text += f" ({self.adapters:,} in adapters, {share:.2f} % of the language model)"
        return text


def count_parameters(config: MobileVLMConfig | LanguageConfig, recipe: Recipe) -> Size:
    """Counts without reading or holding any weights."""
    with torch.device("meta"):
        model = LanguageModel(config) if isinstance(config, LanguageConfig) else MobileVLM(config)
        language = sum(
            p.numel()
            for n, p in model.named_parameters()
            if "vision_tower" not in n and "mm_projector" not in n
        )
        choose_trained(model, recipe)
    named = list(model.named_parameters())
    trained = [(name, p.numel()) for name, p in named if p.requires_grad]
    return Size(
        sum(p.numel() for _, p in named),
        sum(n for _, n in trained),
        language,
        sum(n for name, n in trained if ".lora_" in name),
        sum(n for name, n in trained if "mm_projector" in name),
    )


def estimate_memory(
    config: MobileVLMConfig | LanguageConfig, recipe: Recipe, size: Size, processes: int
) -> int:
    """Bytes that one process needs: weights, gradients, AdamW's two means in fp32, and activations.

    Activations by a count of what a layer keeps for its backward pass: about 14 hidden and 4 MLP widths per
    position (Korthikanti et al. 2022, with attention that keeps no scores); checkpointing keeps one width per
    layer, and one layer's all. A rule of thumb, within about a quarter.
    """
    language = config.language if isinstance(config, MobileVLMConfig) else config
    pictures = config.num_image_tokens if isinstance(config, MobileVLMConfig) else 0
    state = (4 * size.total + 12 * size.trained) / processes
    if processes > 1:  # a layer, and the embeddings, tower and head, are whole while they compute
        state += 4 * (size.total - size.language) + 8 * language.vocab_size * language.hidden_size
    width = 2 if recipe.run.precision == "bf16" else 4
    positions = recipe.batch.size * (recipe.data.max_length + pictures)
    layer = (14 * language.hidden_size + 4 * language.intermediate_size) * width * positions
    layers = language.num_hidden_layers
    kept = layer + layers * language.hidden_size * width * positions
    activations = kept if recipe.run.gradient_checkpointing else layers * layer
    logits = 3 * 4 * positions * language.vocab_size
    return int(state + activations + logits)
