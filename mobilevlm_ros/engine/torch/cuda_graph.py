# SPDX-License-Identifier: Apache-2.0
"""A PyTorch decoder with a cache of fixed length, whose decode step is one CUDA graph: for measurements.

What a GPU can do with these weights in 16 bits, before any engine is built. On the CPU it runs plainly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobilevlm_ros.model import llama
from mobilevlm_ros.model.mobilevlm import MobileVLM


class StaticCache(llama.KVCache):
    """Keys and values of `capacity` positions; what is new goes where `positions` says, on the device."""

    positions: Tensor

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes [1,heads,T,D] at `positions`; returns all `capacity` positions."""
        store = self._store[layer]
        store[0].index_copy_(2, self.positions, keys)
        store[1].index_copy_(2, self.positions, values)
        return store[0], store[1]

    def advance(self, count: int) -> None:
        """Nothing: shapes and addresses never change."""


class GraphedDecoder:
    """Reads a prompt, then token by token. Embeddings and logits stay on the device."""

    def __init__(self, model: MobileVLM, capacity: int) -> None:
        """`model` is on its device, in its dtype; `capacity` in tokens."""
        weight = model.lm_head.weight
        self._model, self._device = model, weight.device
        config = model.config.language
        self._cache = StaticCache(config, 1, capacity, dtype=weight.dtype, device=weight.device)
        self._places = torch.arange(capacity, device=weight.device)
        self._position = torch.zeros(1, dtype=torch.long, device=weight.device)
        self._input = torch.zeros(1, 1, config.hidden_size, dtype=weight.dtype, device=weight.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output = torch.zeros(0)

    @torch.inference_mode()
    def prefill(self, embeddings: Tensor) -> Tensor:
        """Begins anew with [1,T,H]; the last position's logits [V]."""
        positions = torch.arange(embeddings.shape[1], device=self._device)
        self._position.fill_(embeddings.shape[1])
        return self._forward(embeddings, positions)

    @torch.inference_mode()
    def step(self, embedding: Tensor) -> Tensor:
        """Reads one more token [1,1,H]; its logits [V], which the next step overwrites."""
        self._input.copy_(embedding)
        if self._device.type != "cuda":
            self._output = self._forward(self._input, self._position)
        elif self._graph is None:
            self._record()
        else:
            self._graph.replay()
        self._position += 1
        return self._output

    def _record(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what kernels allocate once must exist before recording
            for _ in range(2):
                self._forward(self._input, self._position)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._forward(self._input, self._position)
        self._graph.replay()

    def _forward(self, x: Tensor, positions: Tensor) -> Tensor:
        self._cache.positions = positions
        mask = self._places <= positions[:, None]
        hidden = self._model.hidden_states(x, positions=positions, mask=mask, cache=self._cache)
        logits: Tensor = self._model.lm_head(hidden[:, -1])[0]
        return logits
