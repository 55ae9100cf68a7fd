# SPDX-License-Identifier: Apache-2.0
"""The layer types of vision.onnx, in each of the ways to store their matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.export.graphs.onnx_writer import CONTRIB, GraphWriter
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.export.quantization.round_to_nearest import quantize

STORES = ("fp16", "fp32", "int8", "int8-block")
"""How `export_vision` can store matrices. 'int8-block' needs ONNX Runtime 1.22."""
INT8_BLOCK = 32
INT8_RANGE = 64
"""Greatest 8-bit weight: products of greater ones with 8-bit activations overflow on CPUs without VNNI
(`reduce_range` in ONNX Runtime's quantisation guide)."""


class Layers:
    """The layer types of the tower and the projectors. Each takes and returns names of tensors [B, N, C]."""

    def __init__(self, graph: GraphWriter, weights: Weights, store: str) -> None:
        self.graph = graph
        self.weights = weights
        self.store = store

    def op(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        return self.graph.node(kind, inputs, output, **attributes)

    def ints(self, *values: int) -> str:
        """A constant i64 vector."""
        return self.graph.constant(f"ints{list(values)}", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.graph.constant(f"scalar({value!r})", np.array(value, np.float32))

    def linear(self, x: str, name: str, scale: float = 1.0, *, bias: bool = True) -> str:
        """x @ W.T + b, both times `scale`; a 1 x 1 convolution's weight works too."""
        weight = self.weights(f"{name}.weight") * np.float32(scale)
        weight = weight.reshape(weight.shape[:2]).T
        if self.store == "int8":
            return self._linear_int8(x, name, weight, scale if bias else None)
        if self.store == "int8-block":
            y = self._matmul_int8_blocks(x, name, weight)
        else:
            kind = np.float32 if self.store == "fp32" else np.float16
            y = self.op("MatMul", [x, self.graph.weight(f"{name}.weight", weight, kind)], f"{name}.matmul")
        if not bias:
            return y
        offset = self.graph.constant(f"{name}.bias", self.weights(f"{name}.bias") * np.float32(scale))
        return self.op("Add", [y, offset], f"{name}.output")

    def _linear_int8(self, x: str, name: str, weight: NDArray[np.float32], bias_scale: float | None) -> str:
        """8-bit weights with a scale per output, activations quantised as they come (ONNX Runtime only)."""
        step = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / INT8_RANGE
        constant = self.graph.constant
        inputs = [
            x,
            constant(f"{name}.weight.int8", np.rint(weight / step).astype(np.int8)),
            constant(f"{name}.weight.scale", step.astype(np.float32)),
            constant(f"{name}.weight.zero", np.zeros(step.shape, np.int8)),
        ]
        if bias_scale is not None:
            inputs.append(constant(f"{name}.bias", self.weights(f"{name}.bias") * np.float32(bias_scale)))
        return self.op("DynamicQuantizeMatMul", inputs, f"{name}.output", domain=CONTRIB)

    def _matmul_int8_blocks(self, x: str, name: str, weight: NDArray[np.float32]) -> str:
        """8-bit weights and activations with a scale per row and block: an outlier spoils its block only."""
        matrix = quantize(np.ascontiguousarray(weight.T), 8, INT8_BLOCK)
        rows, columns = matrix.shape
        scales = matrix.scales.reshape(-1).astype(np.float32)
        return self.op(
            "MatMulNBits",
            [
                x,
                self.graph.constant(f"{name}.weight.packed", matrix.packed),
                self.graph.weight(f"{name}.weight.scales", scales, np.float16),
            ],
            f"{name}.matmul",
            domain=CONTRIB,
            N=rows,
            K=columns,
            bits=8,
            block_size=INT8_BLOCK,
            accuracy_level=4,
        )

    def norm(self, x: str, name: str, epsilon: float) -> str:
        parts = [
            self.graph.constant(f"{name}.{part}", self.weights(f"{name}.{part}"))
            for part in ("weight", "bias")
        ]
        return self.op("LayerNormalization", [x, *parts], f"{name}.output", axis=-1, epsilon=epsilon)

    def gelu(self, x: str, *, quick: bool = False) -> str:
        if quick:
            gate = self.op("Sigmoid", [self.op("Mul", [x, self.scalar(1.702)], f"{x}.scaled")], f"{x}.gate")
            return self.op("Mul", [x, gate], f"{x}.quick_gelu")
        erf = self.op("Erf", [self.op("Div", [x, self.scalar(math.sqrt(2))], f"{x}.scaled")], f"{x}.erf")
        gate = self.op("Add", [erf, self.scalar(1.0)], f"{x}.gate")
        return self.op("Mul", [self.op("Mul", [x, gate], f"{x}.gated"), self.scalar(0.5)], f"{x}.gelu")

    def depthwise(self, x: str, name: str, grid: int, *, stride: int = 1, bias: bool = False) -> str:
        """A 3 x 3 convolution of each channel over the square grid of tokens."""
        kernel = self.weights(f"{name}.weight")
        channels = len(kernel)
        inputs = [self.to_grid(x, channels, grid), self.graph.constant(f"{name}.weight", kernel)]
        if bias:
            inputs.append(self.graph.constant(f"{name}.bias", self.weights(f"{name}.bias")))
        y = self.op(
            "Conv",
            inputs,
            f"{name}.conv",
            kernel_shape=[3, 3],
            pads=[1] * 4,
            strides=[stride] * 2,
            group=channels,
        )
        return self.to_tokens(y, channels)

    def to_grid(self, x: str, channels: int, grid: int) -> str:
        y = self.op("Transpose", [x], f"{x}.channels_first", perm=[0, 2, 1])
        return self.op("Reshape", [y, self.ints(0, channels, grid, grid)], f"{x}.grid")

    def to_tokens(self, x: str, channels: int) -> str:
        y = self.op("Reshape", [x, self.ints(0, channels, -1)], f"{x}.flat")
        return self.op("Transpose", [y], f"{x}.tokens", perm=[0, 2, 1])
