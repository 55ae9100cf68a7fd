# SPDX-License-Identifier: Apache-2.0
"""Texts as vectors, by the model itself: the weighted mean of its language model's token embeddings.

Every backend has that table, and looking tokens up costs microseconds, so a text costs no run of the model.
Weights and the taking off of the common part follow Arora et al., "A simple but tough-to-beat baseline for
sentence embeddings" (ICLR 2017). Their word frequencies are not known here; the rank of a token in a BPE
vocabulary stands for its frequency (merges are learnt from the most frequent on).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.steps import finish
from mobilevlm_ros.processing.tokenizer import Tokenizer

WIDTH = 256
"""Numbers of a vector at most. Wider embeddings are projected at random, which keeps angles (Johnson and
Lindenstrauss): by 256 numbers to about 1/16."""

SCALE = 127.0
"""Of a unit vector's numbers in 8 bits."""

_CHUNK = 1024
_BYTES = 259  # LLaMA's vocabulary: <unk>, <s>, </s> and 256 bytes come before the merges


class TextVectors:
    """Makes unit vectors of texts. Immutable once made, and thread-safe.

    Attributes:
        name: of the vector space: vectors of two texts can be compared where their names are equal.
        width: numbers of a vector, D.
    """

    def __init__(self, name: str, tokenizer: Tokenizer, table: NDArray[np.float16]) -> None:
        self.name = name
        self.width = table.shape[1]
        self._tokenizer = tokenizer
        self._table = table
        ranks = np.clip(np.arange(len(table)) - _BYTES, 0, None)
        self._weights = (np.log(2.0 + ranks) / math.log(2.0 + len(table))).astype(np.float32)
        self._word = lru_cache(maxsize=65536)(self._word_vector)

    def vector(self, text: str) -> NDArray[np.float32]:
        """The vector f32[D] of a text, of length 1; zeros for a text without words."""
        ids = [i for i in self._tokenizer.encode(text, bos=False) if i < len(self._table)]
        if not ids:
            return np.zeros(self.width, np.float32)
        weights = self._weights[ids]
        mean = weights @ self._table[ids].astype(np.float32)
        length = float(np.linalg.norm(mean))
        return np.asarray(mean / length if length > 0 else mean, np.float32)

    def packed(self, text: str) -> bytes:
        """The vector in 8 bits: i8[D], 127 for 1.0; what a memory keeps."""
        return np.rint(self.vector(text) * SCALE).astype(np.int8).tobytes()

    def alike(self, one: str, other: str) -> float:
        """Cosine of two words, -1 to 1; 0 where one is no token of its own: its pieces mean other things."""
        return float(self._word(one) @ self._word(other))

    def _word_vector(self, word: str) -> NDArray[np.float32]:
        whole = len(self._tokenizer.encode(word, bos=False)) == 1
        return self.vector(word) if whole else np.zeros(self.width, np.float32)


def vectors_of(runtime: Runtime) -> TextVectors:
    """The vectors of a model's texts; takes about a second with a vocabulary of 32 000."""
    return finish(make_vectors(runtime))


def make_vectors(runtime: Runtime) -> Generator[str, None, TextVectors]:
    """The same as a generator that yields every few milliseconds and returns them, for the scheduler: engines
    belong to one thread.
    """
    language, tokenizer = runtime.language, runtime.tokenizer
    count = min(language.vocab_size, tokenizer.vocab_size)
    wide = language.hidden_size
    digest = hashlib.sha256(f"1 {count} {wide}".encode())
    digest.update(b"".join(tokenizer.content(i) + b"\0" for i in range(count)))
    project = _projection(wide) if wide > WIDTH else None
    rows, total = [], np.zeros(wide, np.float64)
    for start in range(0, count, _CHUNK):
        chunk = language.embed(np.arange(start, min(start + _CHUNK, count), dtype=np.int64))
        digest.update(chunk[0].astype(np.float16).tobytes())
        total += chunk.sum(0, dtype=np.float64)
        rows.append(chunk if project is None else chunk @ project)
        yield ""
    mean = (total / count).astype(np.float32)
    table = np.concatenate(rows) - (mean if project is None else mean @ project)
    length = np.linalg.norm(table, axis=1, keepdims=True)
    table /= np.maximum(length, 1e-6)
    name = f"{runtime.bundle.manifest.name}:{digest.hexdigest()[:12]}"
    return TextVectors(name, tokenizer, table.astype(np.float16))


def _projection(wide: int) -> NDArray[np.float32]:
    # RandomState, because its numbers are the same in every version of NumPy, and files outlive versions.
    random = np.random.RandomState(20170424)
    return np.asarray(random.standard_normal((wide, WIDTH)) / math.sqrt(WIDTH), np.float32)
