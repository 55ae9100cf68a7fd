# SPDX-License-Identifier: Apache-2.0
"""The reference backend: the PyTorch model itself, straight from a checkpoint directory (then in f32)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilevlm_ros.checkpoints.checkpoint import load as load_model
from mobilevlm_ros.engine import interfaces as base
from mobilevlm_ros.engine.batching.in_turn import BranchesInTurn, branch_in_turn
from mobilevlm_ros.engine.bundle import Bundle, Manifest
from mobilevlm_ros.engine.checks import check_embeddings, check_finite, check_ids, check_pixels, check_room
from mobilevlm_ros.model import llama
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.image import normalize


def load(path: str | Path, *, threads: int = 0) -> tuple[Bundle, base.VisionEngine, base.LanguageEngine]:
    """Engines over the checkpoint `path`, and a description of it that lists no files.

    Raises CheckpointError. `threads` other than 0 sets PyTorch's number of threads, for the whole process.
    """
    if threads:
        torch.set_num_threads(threads)
    path = Path(path)
    model = load_model(path, torch.float32)
    bundle = Bundle(path, Manifest.describe(model.config, path.resolve().name))
    return bundle, TorchVision(model), TorchLanguage(model)


class TorchVision:
    """Encoder and projector."""

    def __init__(self, model: MobileVLM) -> None:
        self._model = model
        self.image_size = model.config.vision.image_size
        self.num_tokens = model.config.num_image_tokens
        self.hidden_size = model.config.language.hidden_size

    @torch.inference_mode()
    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See VisionEngine.encode."""
        check_pixels(pixels, self.image_size)
        embeddings: NDArray[np.float32] = self._model.encode_images(
            torch.from_numpy(normalize(pixels))
        ).numpy()
        check_finite(embeddings, "the image encoder's output")
        return embeddings


class TorchCache:
    """A model's own cache behind the engines' protocol."""

    def __init__(self, inner: llama.KVCache) -> None:
        self.inner = inner

    @property
    def batch(self) -> int:
        """See KVCache.batch."""
        return self.inner.batch

    @property
    def length(self) -> int:
        """See KVCache.length."""
        return self.inner.length

    @property
    def capacity(self) -> int:
        """See KVCache.capacity."""
        return self.inner.capacity

    @property
    def nbytes(self) -> int:
        """See KVCache.nbytes."""
        return self.inner.nbytes

    def truncate(self, length: int) -> None:
        """See KVCache.truncate."""
        self.inner.truncate(length)

    def copy(self, batch: int | None = None, capacity: int | None = None) -> TorchCache:
        """See KVCache.copy."""
        return TorchCache(self.inner.copy(batch, capacity))


class TorchLanguage:
    """The language model."""

    supports_tree_attention = False

    def __init__(self, model: MobileVLM) -> None:
        self._model = model
        self._device = model.lm_head.weight.device
        self.hidden_size = model.config.language.hidden_size
        self.vocab_size = model.config.language.vocab_size
        self.max_length = model.config.language.context_length

    @torch.inference_mode()
    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See LanguageEngine.embed."""
        check_ids(ids, self.vocab_size)
        return _array(self._model.embed_tokens(torch.from_numpy(ids).to(self._device)))

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> TorchCache:
        """See LanguageEngine.new_cache."""
        capacity = self.max_length if capacity is None else capacity
        if batch < 1 or not 1 <= capacity <= self.max_length:
            raise ValueError(
                f"a cache of {batch} x {capacity} tokens does not fit a context of {self.max_length}"
            )
        return TorchCache(self._model.new_cache(batch, capacity))

    @torch.inference_mode()
    def forward(
        self, embeddings: NDArray[np.float32], cache: base.KVCache, num_logits: int = 1
    ) -> NDArray[np.float32]:
        """See LanguageEngine.forward."""
        if not isinstance(cache, TorchCache):
            raise ValueError("the cache belongs to another backend")
        check_embeddings(embeddings, cache.batch, self.hidden_size, num_logits)
        before, tokens = cache.length, embeddings.shape[1]
        check_room(cache.length, tokens, cache.capacity, self.max_length)
        inputs = torch.from_numpy(embeddings).to(self._device, self._model.dtype)
        hidden = self._model.hidden_states(inputs, cache=cache.inner)
        logits = _array(self._model.lm_head(hidden[:, tokens - num_logits :]))
        try:
            check_finite(logits, "the decoder's output")
        except Exception:
            cache.truncate(before)
            raise
        return logits

    def branch(
        self, continuations: Sequence[NDArray[np.float32]], cache: base.KVCache, num_logits: int = 1
    ) -> list[NDArray[np.float32]]:
        """See LanguageEngine.branch."""
        return branch_in_turn(self, continuations, cache, num_logits)

    def branches(self, cache: base.KVCache, room: int) -> BranchesInTurn:
        """See LanguageEngine.branches."""
        return BranchesInTurn(self, cache, room)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor of any device and precision as f32 on the CPU."""
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
