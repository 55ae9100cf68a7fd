# SPDX-License-Identifier: Apache-2.0
"""GPTQ of a whole decoder: calibration prompts pass through it while one layer at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.layer_loader import Weights, load_module
from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt
from mobilevlm_ros.export.quantization.gptq import gptq
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.export.quantization.round_to_nearest import QuantizedMatrix
from mobilevlm_ros.model.config import LanguageConfig
from mobilevlm_ros.model.llama import Layer, rotary_tables

ROWS_OF_A_PRODUCT = 1024
"""Inputs that are joined before they are multiplied: large products are the fastest."""


class GptqDecoder:
    """Quantises each matrix for the inputs that the matrices before it, already quantised, give it.

    An instance is a `Quantizer` for one `export_decoder`, which asks for matrices in the model's order.
    """

    def __init__(
        self,
        weights: Weights,
        config: LanguageConfig,
        precision: DecoderPrecision,
        prompts: Iterable[CalibrationPrompt],
    ) -> None:
        self._weights = weights
        self._config = config
        self._precision = precision
        self._states: list[Tensor] = []  # f32 [1, T, H] of each prompt, before layer number `_next`
        self._tails: list[int] = []
        for prompt in prompts:
            self._states.append(torch.from_numpy(prompt.embeddings)[None])
            self._tails.append(prompt.tail)
        self._next = 0
        self._matrices: dict[str, QuantizedMatrix] = {}  # of the latest layer

    def __call__(self, name: str, weight: NDArray[np.float32], bits: int, block_size: int) -> QuantizedMatrix:
        """The matrix called `name`; see DecoderPrecision.overrides for names."""
        if name not in self._matrices:
            self._advance_to(name)
        return self._matrices.pop(name)

    @torch.inference_mode()
    def _advance_to(self, name: str) -> None:
        while name not in self._matrices and self._next < self._config.num_hidden_layers:
            self._matrices = {}
            self._pass_layer(self._next)
            self._next += 1
        if name == "lm_head":
            self._pass_head()

    def _pass_layer(self, index: int) -> None:
        name = f"model.layers.{index}"
        layer = load_module(lambda: Layer(self._config, index), self._weights, name)
        attention, mlp = layer.self_attn, layer.mlp

        qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._fit(f"{name}.self_attn.qkv_proj", qkv, map(layer.input_layernorm, self._states))
        mixed = [self._attend(layer, x) for x in self._states]
        if index == self._config.num_hidden_layers - 1:
            # As in the exported graph: from here on nothing mixes positions.
            mixed = [x[:, -tail:] for x, tail in zip(mixed, self._tails)]
            self._states = [x[:, -tail:] for x, tail in zip(self._states, self._tails)]
        self._fit(f"{name}.self_attn.o_proj", (attention.o_proj,), mixed)
        self._states = [x + attention.o_proj(y) for x, y in zip(self._states, mixed)]
        del mixed

        normed = layer.post_attention_layernorm
        self._fit(f"{name}.mlp.gate_up_proj", (mlp.gate_proj, mlp.up_proj), map(normed, self._states))
        gated = [mlp.gate(normed(x)) for x in self._states]
        self._fit(f"{name}.mlp.down_proj", (mlp.down_proj,), gated)
        for i, y in enumerate(gated):
            self._states[i] = self._states[i] + mlp.down_proj(y)

    def _pass_head(self) -> None:
        config = self._config
        norm = load_module(
            lambda: nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps), self._weights, "model.norm"
        )
        stored = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        head = load_module(
            lambda: nn.Linear(config.hidden_size, config.vocab_size, bias=False), self._weights, stored
        )
        self._fit("lm_head", (head,), map(norm, self._states))

    def _attend(self, layer: Layer, x: Tensor) -> Tensor:
        rotary = rotary_tables(self._config, torch.arange(x.shape[1]))
        return layer.self_attn.attend(layer.input_layernorm(x), rotary, None, None)

    def _fit(self, name: str, parts: Sequence[nn.Linear], inputs: Iterable[Tensor]) -> None:
        """Quantises one matrix, made of all rows of `parts`, which go on with the quantised weights."""
        bits = self._precision.bits_of(name)
        if bits == 32:
            return
        weight = torch.cat([part.weight for part in parts]).numpy()
        try:
            matrix = gptq(weight, _gram(inputs), bits, self._precision.block_size)
        except ValueError as error:
            raise CheckpointError(f"{name} cannot be quantised by GPTQ: {error}") from error
        self._matrices[name] = matrix
        pieces = torch.from_numpy(matrix.dequantize()).split([part.out_features for part in parts])
        for part, piece in zip(parts, pieces):
            part.weight = nn.Parameter(piece, requires_grad=False)


def _gram(inputs: Iterable[Tensor]) -> NDArray[np.float32]:
    """The sum of x xᵀ over the last axis of inputs f32 [1, T, K]: f32 [K, K]."""
    total: NDArray[np.float32] | None = None
    for rows in _joined(x.flatten(0, 1) for x in inputs):
        product = rows.T @ rows  # NumPy knows that this is symmetric: half the work
        total = product if total is None else np.add(total, product, out=total)
    if total is None:
        raise ValueError("GPTQ needs at least one prompt")
    return total


def _joined(parts: Iterable[Tensor]) -> Iterator[NDArray[np.float32]]:
    """The rows of several matrices, ROWS_OF_A_PRODUCT and some more at a time."""
    waiting: list[Tensor] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= ROWS_OF_A_PRODUCT:
            yield torch.cat(waiting).numpy()
            waiting = []
    if waiting:
        yield torch.cat(waiting).numpy()
