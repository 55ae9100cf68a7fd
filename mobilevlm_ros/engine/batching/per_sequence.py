# SPDX-License-Identifier: Apache-2.0
"""What decoders on GPUs share: a cache of rows, each with buffers of its own, and the checks around a run.

A batch is its rows in turn. Questions on one frame go through `branch`, which copies nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.batching.in_turn import BranchesInTurn, check_branches
from mobilevlm_ros.engine.bundle import Manifest
from mobilevlm_ros.engine.checks import check_embeddings, check_finite, check_ids, check_room
from mobilevlm_ros.engine.interfaces import KVCache

_LEAST_ROOM = 64  # tokens


def room_for(length: int, context: int) -> int:
    """Tokens to allocate so that `length` fit: few sizes, doubling, as each is a copy or a CUDA graph."""
    room = _LEAST_ROOM
    while room < length:
        room *= 2
    return min(room, context)


class CachedSequence(ABC):
    """Keys and values of one sequence, in buffers that grow with it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0

    @abstractmethod
    def copy(self, capacity: int) -> CachedSequence:
        """An independent row with the same `length` tokens."""


class PerSequenceCache:
    """Rows side by side; all have the same length and capacity."""

    def __init__(self, rows: list[CachedSequence], row_bytes: Callable[[int], int]) -> None:
        self.rows = rows
        self._row_bytes = row_bytes

    @property
    def batch(self) -> int:
        """See KVCache.batch."""
        return len(self.rows)

    @property
    def length(self) -> int:
        """See KVCache.length."""
        return self.rows[0].length

    @property
    def capacity(self) -> int:
        """See KVCache.capacity."""
        return self.rows[0].capacity

    @property
    def nbytes(self) -> int:
        """See KVCache.nbytes."""
        return self.batch * self._row_bytes(self.capacity)

    def truncate(self, length: int) -> None:
        """See KVCache.truncate."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} tokens to {length}")
        for row in self.rows:
            row.length = length

    def copy(self, batch: int | None = None, capacity: int | None = None) -> PerSequenceCache:
        """See KVCache.copy."""
        batch = self.batch if batch is None else batch
        capacity = self.capacity if capacity is None else capacity
        if batch != self.batch and self.batch != 1:
            raise ValueError(f"cannot repeat a cache of batch {self.batch} to {batch}")
        if capacity < self.length:
            raise ValueError(f"capacity {capacity} is less than the {self.length} tokens held")
        rows = self.rows if batch == self.batch else self.rows * batch
        return PerSequenceCache([row.copy(capacity) for row in rows], self._row_bytes)


class PerSequenceLanguage(ABC):
    """A LanguageEngine whose subclass reads one sequence at a time."""

    supports_tree_attention = False
    row_type: type[CachedSequence]
    """The rows it makes."""

    def __init__(self, table: NDArray[np.floating[Any]], manifest: Manifest) -> None:
        self._table = table
        self._manifest = manifest
        self.hidden_size = manifest.hidden_size
        self.vocab_size = manifest.vocab_size
        self.max_length = manifest.context_length

    @abstractmethod
    def _new_row(self, capacity: int) -> CachedSequence:
        """An empty row."""

    @abstractmethod
    def _read(
        self, row: CachedSequence, embeddings: NDArray[np.float32], num_logits: int
    ) -> NDArray[np.float32]:
        """Reads f32 [T, H] behind the tokens of `row`; returns the last `num_logits` >= 1 logits f32 [n, V].

        Does not change `row.length`. Raises EngineError.
        """

    def _row_bytes(self, capacity: int) -> int:
        """Bytes of a row of f16 keys and values when it is full."""
        manifest = self._manifest
        token = 2 * manifest.num_layers * manifest.num_kv_heads * manifest.head_dim * 2
        return token * room_for(capacity, self.max_length)

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See LanguageEngine.embed."""
        check_ids(ids, self.vocab_size)
        return np.asarray(self._table[ids], np.float32)

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> PerSequenceCache:
        """See LanguageEngine.new_cache."""
        capacity = self.max_length if capacity is None else capacity
        if batch < 1 or not 1 <= capacity <= self.max_length:
            raise ValueError(
                f"a cache of {batch} x {capacity} tokens does not fit a context of {self.max_length}"
            )
        return PerSequenceCache([self._new_row(capacity) for _ in range(batch)], self._row_bytes)

    def forward(
        self, embeddings: NDArray[np.float32], cache: KVCache, num_logits: int = 1
    ) -> NDArray[np.float32]:
        """See LanguageEngine.forward."""
        rows = self._rows(cache)
        check_embeddings(embeddings, cache.batch, self.hidden_size, num_logits)
        tokens = embeddings.shape[1]
        check_room(cache.length, tokens, cache.capacity, self.max_length)
        needs_logits = max(1, num_logits)
        logits = np.stack(
            [self._read(row, part, needs_logits) for row, part in zip(rows, embeddings, strict=True)]
        )
        check_finite(logits, "the decoder's output")
        for row in rows:
            row.length += tokens
        return logits[:, needs_logits - num_logits :]

    def branch(
        self, continuations: Sequence[NDArray[np.float32]], cache: KVCache, num_logits: int = 1
    ) -> list[NDArray[np.float32]]:
        """See LanguageEngine.branch."""
        check_branches(continuations, cache, self.max_length)
        rows = self._rows(cache)
        results = []
        for tokens in continuations:
            needs_logits = min(num_logits, len(tokens))
            check_embeddings(tokens[None], 1, self.hidden_size, needs_logits)
            # What is written behind `length` does not count, and the next one writes over it.
            logits = self._read(rows[0], tokens, max(1, needs_logits))
            check_finite(logits, "the decoder's output")
            results.append(logits[len(logits) - needs_logits :])
        return results

    def branches(self, cache: KVCache, room: int) -> BranchesInTurn:
        """See LanguageEngine.branches."""
        return BranchesInTurn(self, cache, room)

    def _rows(self, cache: KVCache) -> list[CachedSequence]:
        if not isinstance(cache, PerSequenceCache) or not isinstance(cache.rows[0], self.row_type):
            raise ValueError("the cache belongs to another backend")
        return cache.rows
