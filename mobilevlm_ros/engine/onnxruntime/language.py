# SPDX-License-Identifier: Apache-2.0
"""The decoder of the ONNX Runtime backend (CPU)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mobilevlm_ros.engine.batching.in_turn import BranchesInTurn, branch_in_turn, check_branches
from mobilevlm_ros.engine.batching.token_tree import TokenTree, TreeBatch
from mobilevlm_ros.engine.bundle import Manifest
from mobilevlm_ros.engine.checks import check_embeddings, check_finite, check_ids, check_room
from mobilevlm_ros.engine.interfaces import Branches, KVCache
from mobilevlm_ros.engine.onnxruntime.kv_cache import OrtCache
from mobilevlm_ros.errors import EngineError

LEAST_PREFILL = 48
"""Tokens from which on prefill.onnx, where a bundle has it, is faster than the decoder's 4 bits."""

_HIDDEN = np.finfo(np.float32).min


class OrtLanguage:
    """The decoder graph, its embedding table, and the runs that fill a cache.

    Args:
        session: of decoder.onnx or decoder.tree.onnx; only with the latter are branches read side by side.
        table: embeddings [V, H].
        manifest: of the bundle.
        prefill: of prefill.onnx or prefill.tree.onnx, of the same kind; None for none.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        table: NDArray[np.floating[Any]],
        manifest: Manifest,
        prefill: onnxruntime.InferenceSession | None = None,
    ) -> None:
        self._session = session
        self._prefill = prefill
        self.supports_tree_attention = any(value.name == "attention_bias" for value in session.get_inputs())
        self._table = table
        self._manifest = manifest
        self.hidden_size = manifest.hidden_size
        self.vocab_size = manifest.vocab_size
        self.max_length = manifest.context_length

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See LanguageEngine.embed."""
        check_ids(ids, self.vocab_size)
        return np.asarray(self._table[ids], np.float32)

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> OrtCache:
        """See LanguageEngine.new_cache."""
        capacity = self.max_length if capacity is None else capacity
        if batch < 1 or not 1 <= capacity <= self.max_length:
            raise ValueError(
                f"a cache of {batch} x {capacity} tokens does not fit a context of {self.max_length}"
            )
        return OrtCache(batch, capacity, self._manifest)

    def forward(
        self, embeddings: NDArray[np.float32], cache: KVCache, num_logits: int = 1
    ) -> NDArray[np.float32]:
        """See LanguageEngine.forward."""
        cache = _ours(cache)
        check_embeddings(embeddings, cache.batch, self.hidden_size, num_logits)
        batch, tokens, _ = embeddings.shape
        check_room(cache.length, tokens, cache.capacity, self.max_length)
        # GroupQueryAttention reads many tokens after a non-empty cache only at batch 1, so such a
        # batch goes row by row or token by token, whichever takes fewer runs.
        if batch == 1 or tokens == 1 or cache.length == 0:
            logits = self._read(embeddings, cache, cache.length, num_logits)
        elif batch <= tokens:
            pairs = zip(cache.rows(), np.split(embeddings, batch), strict=True)
            logits = np.concatenate([self._read(part, row, cache.length, num_logits) for row, part in pairs])
        else:
            steps = np.split(embeddings, tokens, axis=1)
            each = [self._read(step, cache, cache.length + t, 1) for t, step in enumerate(steps)]
            logits = np.concatenate(each, axis=1)[:, tokens - num_logits :]
        cache.length += tokens
        return logits

    def branch(
        self, continuations: Sequence[NDArray[np.float32]], cache: KVCache, num_logits: int = 1
    ) -> list[NDArray[np.float32]]:
        """See LanguageEngine.branch."""
        cache = _ours(cache)
        check_branches(continuations, cache, self.max_length)
        rows = sum(map(len, continuations))
        if (
            not self.supports_tree_attention
            or len(continuations) < 2
            or cache.length + rows > self.max_length
        ):
            return branch_in_turn(self, continuations, cache, num_logits)
        read = OrtBranches(self, cache, rows).read(dict(enumerate(continuations)), num_logits)
        return [read[number] for number in range(len(continuations))]

    def branches(self, cache: KVCache, room: int) -> Branches:
        """See LanguageEngine.branches."""
        if self.supports_tree_attention:
            return OrtBranches(self, _ours(cache), room)
        return BranchesInTurn(self, cache, room)

    def read_rows(self, rows: TreeBatch, cache: OrtCache, past: int) -> NDArray[np.float32]:
        """The logits f32 [wanted, V] of a run of a tree, which fills the cache from row `past` on."""
        embeddings = rows.embeddings[None]
        check_embeddings(embeddings, cache.batch, self.hidden_size, rows.needs_logits)
        return self._read(embeddings, cache, past, rows.needs_logits, rows)[0]

    def _read(
        self,
        embeddings: NDArray[np.float32],
        cache: OrtCache,
        past: int,
        num_logits: int,
        rows: TreeBatch | None = None,
    ) -> NDArray[np.float32]:
        """Logits f32 [B, num_logits, V] of embeddings f32 [B, T, H] that are written from row `past` on."""
        batch, tokens, _ = embeddings.shape
        early = tokens - num_logits
        if self._prefill is None or batch > 1 or early < LEAST_PREFILL:
            early = 0
        else:
            self._run(self._prefill, embeddings[:, :early], cache, past, None, rows)
            for buffer in cache.buffers[-2:]:  # whatever goes wrong in a layer reaches the last one
                check_finite(buffer[:, :, past : past + early], "the decoder's cache")
            if early == tokens:
                return np.empty((1, 0, self.vocab_size), np.float32)
        logits = np.empty((batch, max(1, num_logits), self.vocab_size), np.float32)
        self._run(self._session, embeddings[:, early:], cache, past + early, logits, rows)
        check_finite(logits, "the decoder's output")
        return logits[:, logits.shape[1] - num_logits :]

    def _run(
        self,
        session: onnxruntime.InferenceSession,
        embeddings: NDArray[np.float32],
        cache: OrtCache,
        past: int,
        logits: NDArray[np.float32] | None,
        rows: TreeBatch | None,
    ) -> None:
        """One run of a graph: fills rows past .. past + T of the cache, and `logits` [B, n, V] if any.

        `rows` are those of a whole tree, of which the embeddings are a part; None for a plain sequence.
        """
        batch, tokens, _ = embeddings.shape
        total = past + tokens
        inputs: dict[str, NDArray[Any]] = {
            "embeddings": np.ascontiguousarray(embeddings),
            "seqlens_k": np.full(batch, total - 1, np.int32),
            "total_sequence_length": np.array([total], np.int32),
        }
        if logits is not None:
            inputs["num_logits"] = np.array([logits.shape[1]], np.int64)
        if self.supports_tree_attention:
            inputs["position_ids"], inputs["attention_bias"] = _places(batch, tokens, past, rows)
        binding = cache.binding(session)
        # It borrows the arrays' memory, it does not keep them alive: `inputs` does.
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        if logits is not None:
            binding.bind_ortvalue_output("logits", onnxruntime.OrtValue.ortvalue_from_numpy(logits))
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise EngineError(f"the decoder failed: {error}") from error


class OrtBranches:
    """Branches behind what a cache of one row holds; they take `room` rows in all.

    They live in the room that the cache has left (so it must not be read meanwhile), or in a copy of it.
    """

    def __init__(self, language: OrtLanguage, cache: OrtCache, room: int) -> None:
        check_room(cache.length, room, language.max_length, language.max_length)
        needed = cache.length + room
        self._language = language
        self._cache = cache if needed <= cache.capacity else cache.copy(capacity=needed)
        self._tree = TokenTree(cache.length)

    def read(
        self, pieces: Mapping[int, NDArray[np.float32]], num_logits: int = 1
    ) -> dict[int, NDArray[np.float32]]:
        """See Branches.read."""
        past = self._tree.length
        rows = self._tree.grow(pieces, num_logits)
        check_room(past, len(rows.embeddings), self._cache.capacity, self._language.max_length)
        logits = self._language.read_rows(rows, self._cache, past)
        return {number: logits[logit_rows] for number, logit_rows in rows.logit_rows.items()}


def _places(
    batch: int, tokens: int, past: int, rows: TreeBatch | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """position_ids and attention_bias of a run (engine.export_tree)."""
    total = past + tokens
    if rows is None:
        positions = np.broadcast_to(np.arange(past, total), (batch, tokens))
        return np.ascontiguousarray(positions), np.zeros((1, 1, tokens, total), np.float32)
    first = past - (rows.visible.shape[1] - len(rows.positions))
    part = slice(first, first + tokens)
    bias = np.where(rows.visible[part, :total], np.float32(0), _HIDDEN)
    return rows.positions[None, part], bias[None, None]


def _ours(cache: KVCache) -> OrtCache:
    if not isinstance(cache, OrtCache):
        raise ValueError("the cache belongs to another backend")
    return cache
