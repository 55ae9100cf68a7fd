# SPDX-License-Identifier: Apache-2.0
"""prefill.onnx: the decoder's layers with 8-bit weights, which read a long prompt faster than 4-bit ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.export.graphs.decoder import DecoderGraph
from mobilevlm_ros.export.graphs.onnx_writer import CONTRIB, GraphWriter
from mobilevlm_ros.export.graphs.tree_decoder import write_tree
from mobilevlm_ros.export.graphs.vision_layers import INT8_RANGE
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.export.quantization.round_to_nearest import round_to_nearest
from mobilevlm_ros.model.config import LanguageConfig

_LEAST = np.finfo(np.float32).tiny


def export_prefill(
    weights: Weights, config: LanguageConfig, path: Path, on_layer: Callable[[], None] = lambda: None
) -> list[str]:
    """Writes `path`, its data file and its tree (export_tree), and returns their names.

    Inputs and outputs are those of export_decoder less `num_logits` and `logits`: this graph only fills the
    cache. Weights have 8 bits and a scale per output, activations 8 bits and a scale per token.
    `on_layer` is called after each layer.
    """
    with GraphWriter(path) as graph:
        _Prefill(graph, weights, config).write(on_layer)
        graph.save("mobilellama_prefill")
        return [*graph.files, write_tree(path)]


class _Prefill(DecoderGraph):
    def __init__(self, graph: GraphWriter, weights: Weights, config: LanguageConfig) -> None:
        super().__init__(graph, weights, config, DecoderPrecision(bits=8), round_to_nearest)

    def write(self, on_layer: Callable[[], None]) -> None:
        self.graph.constant("least", np.array(_LEAST, np.float32))
        self.graph.constant("nothing", np.zeros((), np.float32))
        residual = self._inputs()
        normed = self._norm(residual, "model.layers.0.input_layernorm")
        last = self.config.num_hidden_layers - 1
        for i in range(last):
            normed, residual = self._after_attention(self._attention(normed, i), residual, i)
            on_layer()
        self._attention(normed, last)  # nobody reads what comes after the last keys and values
        on_layer()

    def _matmul(self, x: str, name: str, weight: NDArray[np.float32], output: str | None = None) -> str:
        graph = self.graph
        step = np.maximum(np.abs(weight).max(axis=1), _LEAST) / INT8_RANGE
        levels = np.rint(weight / step[:, None]).astype(np.int8)
        # DynamicQuantizeMatMul has one scale for all tokens, and the first token's activations are
        # often hundreds of times larger than the others': bring all to the same range before, and back after.
        size = graph.node("ReduceMax", [graph.node("Abs", [x], f"{name}.abs")], f"{name}.max", axes=[-1])
        # A maximum may pass over NaN, and 8-bit integers have none: what is damaged must stay so.
        nothing = graph.node(
            "Mul", [graph.node("ReduceMean", [x], f"{name}.mean", axes=[-1]), "nothing"], f"{name}.nothing"
        )
        size = graph.node(
            "Add", [graph.node("Max", [size, "least"], f"{name}.bounded"), nothing], f"{name}.size"
        )
        product = graph.node(
            "DynamicQuantizeMatMul",
            [
                graph.node("Div", [x, size], f"{name}.scaled"),
                graph.constant(f"{name}.weight", levels.T),
                graph.constant(f"{name}.scale", step.astype(np.float32)),
                graph.constant(f"{name}.zero", np.zeros(step.shape, np.int8)),
            ],
            f"{name}.product",
            domain=CONTRIB,
        )
        return graph.node("Mul", [product, size], output or f"{name}.output")
