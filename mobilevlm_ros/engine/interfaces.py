# SPDX-License-Identifier: Apache-2.0
"""What every backend offers: an image encoder, a decoder of embeddings, and a cache that can be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class KVCache(Protocol):
    """Keys and values of the tokens a decoder has read. Belongs to its engine; one thread at a time."""

    @property
    def batch(self) -> int:
        """Sequences held side by side; all have the same length."""

    @property
    def length(self) -> int:
        """Tokens held per sequence."""

    @property
    def capacity(self) -> int:
        """Most tokens that fit per sequence."""

    @property
    def nbytes(self) -> int:
        """Bytes of its buffers when full, for memory budgets."""

    def truncate(self, length: int) -> None:
        """Forgets every token after the first `length`. Raises ValueError if fewer are held."""

    def copy(self, batch: int | None = None, capacity: int | None = None) -> KVCache:
        """An independent snapshot. `batch` repeats a batch-1 cache that many times.

        `capacity` defaults to this cache's. Raises ValueError when it is less than `length`, or when
        `batch` is given and this cache's batch is neither 1 nor that.
        """


class VisionEngine(Protocol):
    """Image encoder and projector."""

    @property
    def image_size(self) -> int:
        """Side S of the square images it takes, in pixels."""

    @property
    def num_tokens(self) -> int:
        """Embeddings N per image."""

    @property
    def hidden_size(self) -> int:
        """Width H of an embedding: the decoder's."""

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB images u8 [B, S, S, 3], not normalised, to embeddings f32 [B, N, H].

        Raises ImageError for another shape or dtype, EngineError when the backend fails or yields
        NaN or infinity.
        """


class Branches(Protocol):
    """Continuations of one prompt that grow side by side: each sees the prompt and its own tokens."""

    def read(
        self, pieces: Mapping[int, NDArray[np.float32]], num_logits: int = 1
    ) -> dict[int, NDArray[np.float32]]:
        """Continues the branches of these numbers by f32 [T, H], T >= 1; a new number begins a branch.

        Returns the logits f32 [min(num_logits, T), V] of each one's last positions: but for rounding what
        `forward` on a copy of the prompt's cache gives. Raises what `forward` raises; the branches are
        useless then, the cache is not.
        """


class LanguageEngine(Protocol):
    """Decoder-only language model over embeddings."""

    @property
    def hidden_size(self) -> int:
        """Width H of an embedding."""

    @property
    def vocab_size(self) -> int:
        """Size V of the vocabulary."""

    @property
    def max_length(self) -> int:
        """The model's context, in tokens, images included."""

    @property
    def supports_tree_attention(self) -> bool:
        """Whether `branches` share a run, so that growing them together is faster than one by one."""

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Token ids i64 [T] to embeddings f32 [T, H]. Raises ValueError for an id outside the vocabulary."""

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache; `capacity` defaults to `max_length`. Memory is taken as tokens come in."""

    def forward(
        self, embeddings: NDArray[np.float32], cache: KVCache, num_logits: int = 1
    ) -> NDArray[np.float32]:
        """Reads f32 [B, T, H] after what `cache` holds, extends it, returns logits f32 [B, num_logits, V].

        The logits are those of the last `num_logits` positions; 0 when only the cache is wanted. On any
        error the cache is as it was. Raises ContextOverflow when the tokens do not fit the cache,
        EngineError when embeddings or logits hold NaN or infinity or the backend fails, ValueError for
        shapes that do not match.
        """

    def branch(
        self, continuations: Sequence[NDArray[np.float32]], cache: KVCache, num_logits: int = 1
    ) -> list[NDArray[np.float32]]:
        """Reads each continuation f32 [T_i, H] by itself after what `cache` (batch 1) holds.

        Returns the logits f32 [min(num_logits, T_i), V] of each one's last positions: but for rounding what
        `forward` on a copy of the cache gives. The cache is as it was and needs no room to grow. Raises what
        `forward` raises.
        """

    def branches(self, cache: KVCache, room: int) -> Branches:
        """Branches behind what `cache` (batch 1) holds, with room for that many tokens in all.

        The cache must not be used until the branches are done with; it is as it was then. Raises
        ContextOverflow when `room` is more than the context has.
        """
