# SPDX-License-Identifier: Apache-2.0
"""The ONNX Runtime backend (CPU)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mobilevlm_ros.engine.base import KVCache, LanguageEngine, VisionEngine
from mobilevlm_ros.engine.branching import branch_in_turn
from mobilevlm_ros.engine.bundle import DECODER, EMBEDDINGS, PREFILL, VISION, Bundle, Manifest
from mobilevlm_ros.engine.guard import check_embeddings, check_finite, check_ids, check_pixels, check_room
from mobilevlm_ros.errors import BundleError, EngineError

LEAST_PREFILL = 48
"""Tokens from which on prefill.onnx, where a bundle has it, is faster than the decoder's 4 bits."""


def load(bundle: Bundle, *, threads: int = 0, spin: bool = False) -> tuple[VisionEngine, LanguageEngine]:
    """Engines on the CPU. Raises EngineError, BundleError."""
    language = load_language(bundle, threads=threads, spin=spin)
    vision = open_session(bundle.file(VISION), session_options(threads, spin))
    return OrtVision(vision, bundle.manifest), language


def load_language(bundle: Bundle, *, threads: int = 0, spin: bool = False) -> OrtLanguage:
    """The decoder alone. Raises EngineError, BundleError."""
    _check_version(bundle.manifest)
    options = session_options(threads, spin)
    decoder = open_session(bundle.file(DECODER), options)
    prefill = None
    if PREFILL in bundle.manifest.files:
        prefill = open_session(bundle.file(PREFILL), options)
    try:
        table = np.load(bundle.file(EMBEDDINGS), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"bundle {bundle.path}: {EMBEDDINGS} cannot be read: {error}") from error
    return OrtLanguage(decoder, table, bundle.manifest, prefill)


def session_options(threads: int = 0, spin: bool = False) -> onnxruntime.SessionOptions:
    """Options of every session of ours; `threads` 0 is one per physical core this process may use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or physical_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.log_severity_level = 3  # errors; they come as exceptions too
    return options


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads not counted."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(topology.read_text(encoding="ascii"))
        except OSError:
            cores.add(str(cpu))
    return len(cores)


class OrtVision:
    """Encoder and projector as one graph."""

    def __init__(self, session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
        self._session = session
        self.image_size = manifest.image_size
        self.num_tokens = manifest.image_tokens
        self.hidden_size = manifest.hidden_size

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See VisionEngine.encode."""
        check_pixels(pixels, self.image_size)
        try:
            outputs = self._session.run(None, {"pixels": np.ascontiguousarray(pixels)})
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise EngineError(f"the image encoder failed: {error}") from error
        embeddings: NDArray[np.float32] = outputs[0]
        check_finite(embeddings, "the image encoder's output")
        return embeddings


class OrtCache:
    """Key and value buffers f32 [batch, kv_heads, capacity, head_dim], two per layer, written in place."""

    def __init__(self, batch: int, capacity: int, manifest: Manifest) -> None:
        shape = (batch, manifest.num_kv_heads, capacity, manifest.head_dim)
        self._manifest = manifest
        # Not zeroed: pages that no token has touched cost no memory.
        self.buffers = [np.empty(shape, np.float32) for _ in range(2 * manifest.num_layers)]
        self.batch = batch
        self.capacity = capacity
        self.length = 0

    @property
    def nbytes(self) -> int:
        """See KVCache.nbytes."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def truncate(self, length: int) -> None:
        """See KVCache.truncate."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} tokens to {length}")
        self.length = length

    def copy(self, batch: int | None = None, capacity: int | None = None) -> OrtCache:
        """See KVCache.copy."""
        batch = self.batch if batch is None else batch
        capacity = self.capacity if capacity is None else capacity
        if batch != self.batch and self.batch != 1:
            raise ValueError(f"cannot repeat a cache of batch {self.batch} to {batch}")
        if not self.length <= capacity <= self._manifest.context_length:
            raise ValueError(
                f"capacity {capacity} is not between the {self.length} tokens held and the context of "
                f"{self._manifest.context_length}"
            )
        twin = OrtCache(batch, capacity, self._manifest)
        for new, old in zip(twin.buffers, self.buffers, strict=True):
            new[:, :, : self.length] = old[:, :, : self.length]
        twin.length = self.length
        return twin


class OrtLanguage:
    """The decoder graph, its embedding table, and the runs that fill a cache."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        table: NDArray[np.floating[Any]],
        manifest: Manifest,
        prefill: onnxruntime.InferenceSession | None = None,
    ) -> None:
        self._session = session
        self._prefill = prefill
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
        if not isinstance(cache, OrtCache):
            raise ValueError("the cache belongs to another backend")
        check_embeddings(embeddings, cache.batch, self.hidden_size, num_logits)
        batch, tokens, _ = embeddings.shape
        check_room(tokens, cache, self.max_length)
        before = cache.length
        if self._prefill is not None and batch == 1 and tokens - num_logits >= LEAST_PREFILL:
            self._read_long(self._prefill, embeddings[:, : tokens - num_logits], cache)
            if not num_logits:
                return np.empty((1, 0, self.vocab_size), np.float32)
            embeddings = embeddings[:, tokens - num_logits :]
        try:
            return self._read(embeddings, cache, num_logits)
        except Exception:
            cache.length = before
            raise

    def _read_long(
        self, session: onnxruntime.InferenceSession, embeddings: NDArray[np.float32], cache: OrtCache
    ) -> None:
        """Fills the cache by prefill.onnx."""
        past, tokens = cache.length, embeddings.shape[1]
        self._run(session, embeddings, cache.buffers, past, None)
        for buffer in cache.buffers[-2:]:  # whatever goes wrong in a layer reaches the last one
            check_finite(buffer[:, :, past : past + tokens], "the decoder's cache")
        cache.length += tokens

    def _read(self, embeddings: NDArray[np.float32], cache: OrtCache, num_logits: int) -> NDArray[np.float32]:
        """`forward` by the decoder, on checked arguments."""
        batch, tokens, _ = embeddings.shape
        wanted = max(1, num_logits)
        logits = np.empty((batch, wanted, self.vocab_size), np.float32)
        # GroupQueryAttention reads many tokens after a non-empty cache only at batch 1, so such a
        # batch goes row by row or token by token, whichever takes fewer runs.
        if batch == 1 or tokens == 1 or cache.length == 0:
            self._run(self._session, embeddings, cache.buffers, cache.length, logits)
        elif batch <= tokens:
            for row in range(batch):
                part = slice(row, row + 1)
                buffers = [buffer[part] for buffer in cache.buffers]
                self._run(self._session, embeddings[part], buffers, cache.length, logits[part])
        else:
            one = np.empty((batch, 1, self.vocab_size), np.float32)
            for step in range(tokens):
                token = embeddings[:, step : step + 1]
                self._run(self._session, token, cache.buffers, cache.length + step, one)
                if step >= tokens - wanted:
                    logits[:, step - tokens + wanted] = one[:, 0]
        check_finite(logits, "the decoder's output")
        cache.length += tokens
        return logits[:, wanted - num_logits :]

    def branch(
        self, continuations: Sequence[NDArray[np.float32]], cache: KVCache, num_logits: int = 1
    ) -> list[NDArray[np.float32]]:
        """See LanguageEngine.branch."""
        return branch_in_turn(self, continuations, cache, num_logits)

    @staticmethod
    def _run(
        session: onnxruntime.InferenceSession,
        embeddings: NDArray[np.float32],
        buffers: Sequence[NDArray[np.float32]],
        past: int,
        logits: NDArray[np.float32] | None,
    ) -> None:
        """One run of a graph: fills positions past .. past + T of `buffers`, and `logits` [B, n, V] if it has
        any.
        """
        batch, tokens, _ = embeddings.shape
        total = past + tokens
        inputs = {
            "embeddings": np.ascontiguousarray(embeddings),
            "seqlens_k": np.full(batch, total - 1, np.int32),
            "total_sequence_length": np.array([total], np.int32),
        }
        if logits is not None:
            inputs["num_logits"] = np.array([logits.shape[1]], np.int64)
        binding = session.io_binding()
        # The binding borrows the arrays' memory, it does not keep them alive: `inputs` and `buffers` do.
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for index, buffer in enumerate(buffers):
            name = f"{index // 2}.{('key', 'value')[index % 2]}"
            shared = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            binding.bind_ortvalue_input(f"past.{name}", shared)
            binding.bind_ortvalue_output(f"present.{name}", shared)
        if logits is not None:
            binding.bind_ortvalue_output("logits", onnxruntime.OrtValue.ortvalue_from_numpy(logits))
        try:
            session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise EngineError(f"the decoder failed: {error}") from error


def open_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session of a graph on the CPU. Raises EngineError."""
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise EngineError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error


def _check_version(manifest: Manifest) -> None:
    needed = manifest.requires.get("onnxruntime", "0")
    if _version(onnxruntime.__version__) < _version(needed):
        raise EngineError(
            f"{manifest.name} needs onnxruntime >= {needed}, this is {onnxruntime.__version__}; "
            f'run `pip install "onnxruntime>={needed}"`, or build the bundle with 4 bits throughout'
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
