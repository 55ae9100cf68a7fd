# SPDX-License-Identifier: Apache-2.0
"""MobileVLM: an image becomes a few tokens in a language model's prompt.

`MobileVLM(config).state_dict()` has the names and shapes of the official checkpoints, V1 and V2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mobilevlm_ros.model.clip import VisionTransformer
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.model.llama import KVCache, Llama
from mobilevlm_ros.model.projector import build_projector
from mobilevlm_ros.processing.splice import splice_parts


class MultimodalLlama(Llama):
    """The language model with the tower and the projector inside it, as the checkpoints nest them."""

    def __init__(self, config: MobileVLMConfig) -> None:
        super().__init__(config.language)
        tower = VisionTransformer(config.vision)
        self.vision_tower = nn.ModuleDict({"vision_tower": nn.ModuleDict({"vision_model": tower})})
        self.mm_projector = build_projector(config)


class MobileVLM(nn.Module):
    """Batch B, image side S, patches N, image tokens M, positions T, keys K, vocabulary V, widths D, H."""

    def __init__(self, config: MobileVLMConfig) -> None:
        super().__init__()
        self.config = config
        self.model = MultimodalLlama(config)
        self.lm_head = nn.Linear(config.language.hidden_size, config.language.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Makes the output head the embedding table where the configuration says so."""
        if self.config.language.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def vision(self) -> VisionTransformer:
        tower = self.model.get_submodule("vision_tower.vision_tower.vision_model")
        assert isinstance(tower, VisionTransformer)
        return tower

    @property
    def dtype(self) -> torch.dtype:
        return self.lm_head.weight.dtype

    def encode_features(self, pixel_values: Tensor) -> Tensor:
        """The tower's features of the selected layer: f32[B,3,S,S] (normalised) -> [B,N,D]."""
        features: Tensor = self.vision(pixel_values.to(self.dtype), self.config.num_vision_layers)
        return features[:, 1:] if self.config.select_feature == "patch" else features

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Image tokens for the language model: f32[B,3,S,S] (normalised) -> [B,M,H]."""
        return self.project(self.encode_features(pixel_values))

    def project(self, features: Tensor) -> Tensor:
        """Tower features [B,N,D] -> image tokens [B,M,H]."""
        tokens: Tensor = self.model.mm_projector(features)
        return tokens

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> embeddings [...,H]."""
        embeddings: Tensor = self.model.embed_tokens(ids)
        return embeddings

    def embed_prompt(self, ids: Sequence[int], images: Tensor | None = None) -> Tensor:
        """Embeddings [1,T,H] of a prompt; the images' tokens [n,M,H] replace its IMAGE_TOKENs in order.

        Raises QuestionError when the prompt does not have one IMAGE_TOKEN for each image.
        """
        tokens = torch.as_tensor(list(ids), device=self.lm_head.weight.device)
        shown = [] if images is None else list(images)
        parts = splice_parts(ids, shown, lambda part: self.embed_tokens(tokens[part]))
        return torch.cat(parts).unsqueeze(0)

    def hidden_states(
        self,
        embeddings: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """What `forward` feeds to the output head, [B,T,H]: training needs logits only at labels."""
        hidden: Tensor = self.model(embeddings, positions, mask, cache)
        return hidden

    def forward(
        self,
        embeddings: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits [B,T,V] of embeddings [B,T,H].

        positions: i64[B,T] or [T], the rotary positions; None continues after the cache.
        mask: bool[B,1,T,K] or [T,K], True where a query may attend to a key; None is causal.
        cache: extended by T positions; keys are then the cached ones followed by the new ones.
        Raises ContextOverflow when the cache is full.
        """
        logits: Tensor = self.lm_head(
            self.hidden_states(embeddings, positions=positions, mask=mask, cache=cache)
        )
        return logits

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache; `capacity` None takes the model's whole context."""
        return KVCache(
            self.config.language, batch, capacity, dtype=self.dtype, device=self.lm_head.weight.device
        )

    @torch.no_grad()
    def initialize(self, std: float = 0.02) -> None:
        """Fresh random weights: normal with `std`, as LLaMA and CLIP begin; norms 1, biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1 and not name.endswith("class_embedding"):
                parameter.fill_(1.0)
            elif "mm_projector" in name and parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter)  # depthwise kernels see 9 inputs: `std` would silence them
            else:
                parameter.normal_(0.0, std)
