# SPDX-License-Identifier: Apache-2.0
"""The KV cache of the ONNX Runtime backend (CPU)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import Manifest


class OrtCache:
    """Key and value buffers f32 [batch, kv_heads, capacity, head_dim], two per layer, written in place."""

    def __init__(
        self, batch: int, capacity: int, manifest: Manifest, buffers: list[NDArray[np.float32]] | None = None
    ) -> None:
        shape = (batch, manifest.num_kv_heads, capacity, manifest.head_dim)
        self._manifest = manifest
        self._bindings: dict[int, onnxruntime.IOBinding] = {}
        # Not zeroed: pages that no token has touched cost no memory.
        self.buffers = buffers or [np.empty(shape, np.float32) for _ in range(2 * manifest.num_layers)]
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

    def rows(self) -> Iterator[OrtCache]:
        """Its sequences one by one, over the same memory."""
        for row in range(self.batch):
            buffers = [buffer[row : row + 1] for buffer in self.buffers]
            yield OrtCache(1, self.capacity, self._manifest, buffers)

    def binding(self, session: onnxruntime.InferenceSession) -> onnxruntime.IOBinding:
        """A binding of the session that has these buffers bound. One for all runs, as making it takes half a
        millisecond at 24 layers. It borrows the buffers' memory, it does not keep them alive.
        """
        binding = self._bindings.get(id(session))
        if binding is None:
            binding = self._bindings[id(session)] = session.io_binding()
            for index, buffer in enumerate(self.buffers):
                name = f"{index // 2}.{('key', 'value')[index % 2]}"
                shared = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
                binding.bind_ortvalue_input(f"past.{name}", shared)
                binding.bind_ortvalue_output(f"present.{name}", shared)
        return binding
