# SPDX-License-Identifier: Apache-2.0
"""The decoder as TensorRT wants it: standard operators, every type explicit, the cache read and not written.

The engine returns the new keys and values; one strided copy puts them into the cache. So nothing in the
graph depends on where the cache ends, and a decode step has fixed shapes that a CUDA graph can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.tensorrt import names
from mobilevlm_ros.export.graphs.decoder import rotary_cache
from mobilevlm_ros.export.graphs.onnx_writer import OPSET, GraphWriter
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.export.quantization.round_to_nearest import (
    FACTORS,
    ROWS_AT_ONCE,
    least_error_scales,
    nearest_levels,
)
from mobilevlm_ros.model.config import LanguageConfig

INT4_OPSET = 21
"""The first with 4-bit DequantizeLinear in blocks."""
_BLOCKS = (128, 64, 32, 16)  # of the weights that share a scale, best first
_TINY = np.finfo(np.float16).tiny
_F32, _F16 = 1, 10  # TensorProto's
_HIDDEN = -30000.0  # added to scores that must not count: representable in f16, should an engine use it
_END = np.iinfo(np.int64).max


def export_decoder(
    weights: Weights,
    config: LanguageConfig,
    path: Path,
    *,
    int4: bool,
    on_layer: Callable[[], None] = lambda: None,
) -> list[str]:
    """Writes `path` and its data file, and returns their names.

    `int4` quantises the matrices (TensorRT 10 and newer), otherwise they are f16 (8.5 and newer).

    Inputs: `embeddings` f32 [T, H]; `positions` i32 [T]; `past_positions` i32 [R], names.UNUSED where the
    cache holds nothing; `logit_rows` i32 [L], the tokens to compute logits for; `past.{i}.key/.value`
    f16 [kv_heads, R, head_dim], finite everywhere. Outputs: `logits` f32 [L, V]; `new.{i}.key/.value`
    f16 [kv_heads, T, head_dim].
    """
    opset = INT4_OPSET if int4 else OPSET
    with GraphWriter(path) as graph:
        _Decoder(graph, weights, config, int4, opset).write(on_layer)
        graph.save("mobilellama_tensorrt", opset)
        return graph.files


def quantize_positive(
    weight: NDArray[np.float32], block_size: int
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """A matrix f32 [N, K] as levels i8 [N, K] from -8 to 7 and scales f16 [N, K / block_size] above zero.

    TensorRT's parser refuses other scales. Each block's is the one of a small grid with the least squared
    error.
    """
    rows, columns = weight.shape
    levels = np.empty((rows, columns), np.int8)
    scales = np.empty((rows, columns // block_size), np.float16)
    step = max(1, ROWS_AT_ONCE // columns)
    for start in range(0, rows, step):
        blocks = weight[start : start + step].reshape(-1, columns // block_size, block_size)
        extreme = np.abs(blocks).max(-1)
        candidates = (
            np.maximum(extreme * (factor / divisor), _TINY) for divisor in (7, 8) for factor in FACTORS
        )
        best = np.maximum(least_error_scales(blocks, 4, candidates), _TINY)
        scales[start : start + step] = best
        chosen = nearest_levels(blocks, best.astype(np.float32), 4)
        levels[start : start + step] = chosen.reshape(-1, columns).astype(np.int8)
    return levels, scales


class _Decoder:
    """Tensors are [T, width] unless said otherwise; the residual stream and what is summed over is f32."""

    def __init__(
        self, graph: GraphWriter, weights: Weights, config: LanguageConfig, int4: bool, opset: int
    ) -> None:
        self.graph, self.weights, self.config, self.int4, self.opset = graph, weights, config, int4, opset
        self.kv_heads, self.size = config.num_key_value_heads, config.head_dim
        self.groups = config.num_attention_heads // self.kv_heads

    def write(self, on_layer: Callable[[], None]) -> None:
        graph, config = self.graph, self.config
        x = graph.input(names.EMBEDDINGS, np.float32, ["tokens", config.hidden_size])
        graph.input(names.POSITIONS, np.int32, ["tokens"])
        graph.input(names.PAST_POSITIONS, np.int32, ["room"])
        graph.input(names.LOGIT_ROWS, np.int32, ["num_logits"])
        self._shared()
        last = config.num_hidden_layers - 1
        for i in range(config.num_hidden_layers):
            name = f"model.layers.{i}"
            mixed = self._attention(self._norm(x, f"{name}.input_layernorm"), i)
            if i == last:  # from here on nothing mixes positions: go on with those whose logits are wanted
                mixed = graph.node("Gather", [mixed, names.LOGIT_ROWS], f"{mixed}.wanted", axis=0)
                x = graph.node("Gather", [x, names.LOGIT_ROWS], f"{x}.wanted", axis=0)
            x = self._add(x, self._linear(mixed, f"{name}.self_attn.o_proj"), f"{name}.attended")
            y = self._norm(x, f"{name}.post_attention_layernorm")
            x = self._add(x, self._mlp(y, f"{name}.mlp"), f"{name}.output")
            on_layer()
        head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        scores = self._matmul(self._norm(x, "model.norm"), "lm_head", self.weights(f"{head}.weight"))
        self._cast(scores, _F32, names.LOGITS)
        graph.output(names.LOGITS, np.float32, ["num_logits", config.vocab_size])
        on_layer()

    def _shared(self) -> None:
        """What every layer reads: rotations of the new tokens, and which tokens each may not see."""
        graph = self.graph
        for name, table in zip(("cosine", "sine"), rotary_cache(self.config)):
            doubled = graph.constant(f"rotary.{name}", np.concatenate([table, table], 1).astype(np.float16))
            graph.node("Gather", [doubled, names.POSITIONS], name, axis=0)
        keys = graph.node("Concat", [names.PAST_POSITIONS, names.POSITIONS], "key_positions", axis=0)
        columns = graph.node("Unsqueeze", [keys, self._ints(0)], "key_columns")
        rows = graph.node("Unsqueeze", [names.POSITIONS, self._ints(1)], "query_rows")
        later = graph.node("Greater", [columns, rows], "later")
        graph.node("Where", [later, self._scalar(_HIDDEN), self._scalar(0.0)], "mask")
        graph.node("Shape", [names.PAST_POSITIONS], "room_size")

    def _attention(self, x: str, layer: int) -> str:
        graph, kv, groups, size = self.graph, self.kv_heads, self.groups, self.size
        name = f"model.layers.{layer}.self_attn"
        fused = np.concatenate([self.weights(f"{name}.{part}_proj.weight") for part in "qkv"])
        qkv = self._matmul(x, f"{name}.qkv_proj", fused)
        ends = np.cumsum([0, kv * groups * size, kv * size, kv * size]).tolist()
        q, k, v = (
            self._slice(qkv, self._ints(ends[i]), self._ints(ends[i + 1]), 1, f"{name}.{part}_flat")
            for i, part in enumerate("qkv")
        )
        q = graph.node("Reshape", [q, self._ints(0, kv, groups, size)], f"{name}.q_heads")
        q = graph.node("Transpose", [q], f"{name}.q", perm=[1, 2, 0, 3])  # [kv, groups, T, size]
        k, v = (
            graph.node(
                "Transpose",
                [graph.node("Reshape", [part, self._ints(0, kv, size)], f"{part}.heads")],
                f"{part}.transposed",
                perm=[1, 0, 2],
            )
            for part in (k, v)
        )
        # Scaled before the product, which then cannot overflow.
        q = graph.node("Mul", [self._rotate(q), self._scalar(size**-0.5, np.float16)], f"{name}.q_scaled")
        k = self._rotate(k, names.new(layer, "key"))
        v = graph.node("Identity", [v], names.new(layer, "value"))
        past = [
            graph.input(names.past(layer, kind), np.float16, [kv, "room", size]) for kind in ("key", "value")
        ]
        for kind in ("key", "value"):
            graph.output(names.new(layer, kind), np.float16, [kv, "tokens", size])
        return self._attend(q, [past[0], k], [past[1], v], name)

    def _attend(self, q: str, keys: list[str], values: list[str], name: str) -> str:
        """q [kv, groups, T, size] over cache and new tokens, [T, heads * size]. The cache is never copied."""
        graph = self.graph
        parts = []
        for key in keys:
            turned = graph.node("Transpose", [key], f"{key}.turned", perm=[0, 2, 1])
            turned = graph.node("Unsqueeze", [turned, self._ints(1)], f"{key}.turned_once")
            parts.append(graph.node("MatMul", [q, turned], f"{key}.scores"))
        scores = self._cast(graph.node("Concat", parts, f"{name}.scores", axis=3), _F32)
        scores = graph.node("Add", [scores, "mask"], f"{name}.masked")
        weights = self._cast(graph.node("Softmax", [scores], f"{name}.weights", axis=-1), _F16)
        starts, ends = (self._ints(0), "room_size"), ("room_size", self._ints(_END))
        mixed = []
        for i, value in enumerate(values):
            share = self._slice(weights, starts[i], ends[i], 3, f"{value}.weights")
            rows = graph.node("Unsqueeze", [value, self._ints(1)], f"{value}.rows")
            mixed.append(graph.node("MatMul", [share, rows], f"{value}.mixed"))
        y = graph.node("Add", mixed, f"{name}.mixed")
        y = graph.node("Transpose", [y], f"{name}.merged", perm=[2, 0, 1, 3])
        return graph.node(
            "Reshape", [y, self._ints(0, self.kv_heads * self.groups * self.size)], f"{name}.out"
        )

    def _rotate(self, x: str, output: str | None = None) -> str:
        """[..., T, size] turned by the positions' angles."""
        graph, half = self.graph, self.size // 2
        first = self._slice(x, self._ints(0), self._ints(half), -1, f"{x}.first")
        second = self._slice(x, self._ints(half), self._ints(self.size), -1, f"{x}.second")
        turned = graph.node(
            "Concat", [graph.node("Neg", [second], f"{x}.negative"), first], f"{x}.other", axis=-1
        )
        straight = graph.node("Mul", [x, "cosine"], f"{x}.cosine")
        across = graph.node("Mul", [turned, "sine"], f"{x}.sine")
        return graph.node("Add", [straight, across], output or f"{x}.rotated")

    def _mlp(self, x: str, name: str) -> str:
        gate = self._linear(x, f"{name}.gate_proj")
        open_ = self.graph.node("Sigmoid", [gate], f"{name}.sigmoid")
        gate = self.graph.node("Mul", [gate, open_], f"{name}.silu")
        product = self.graph.node("Mul", [gate, self._linear(x, f"{name}.up_proj")], f"{name}.product")
        return self._linear(product, f"{name}.down_proj")

    def _linear(self, x: str, name: str) -> str:
        return self._matmul(x, name, self.weights(f"{name}.weight"))

    def _matmul(self, x: str, name: str, weight: NDArray[np.float32]) -> str:
        """x @ weight.T; weight f32 [N, K]."""
        block = next((size for size in _BLOCKS if weight.shape[1] % size == 0), 0)
        if not self.int4 or not block or weight.shape[0] % 2:
            matrix = self.graph.constant(f"{name}.weight", weight.T.astype(np.float16))
            return self.graph.node("MatMul", [x, matrix], f"{name}.output")
        levels, scales = quantize_positive(weight, block)
        stored = self.graph.int4(f"{name}.weight.int4", np.ascontiguousarray(levels.T))
        scale = self.graph.constant(f"{name}.weight.scale", scales.T)
        matrix = self.graph.node(
            "DequantizeLinear", [stored, scale], f"{name}.weight", axis=0, block_size=block
        )
        return self.graph.node("MatMul", [x, matrix], f"{name}.output")

    def _norm(self, x: str, name: str) -> str:
        """RMSNorm in f32, returned as f16."""
        graph = self.graph
        square = graph.node("Mul", [x, x], f"{name}.square")
        if self.opset >= 18:
            mean = graph.node("ReduceMean", [square, self._ints(-1)], f"{name}.mean", keepdims=1)
        else:
            mean = graph.node("ReduceMean", [square], f"{name}.mean", axes=[-1], keepdims=1)
        mean = graph.node("Add", [mean, self._scalar(self.config.rms_norm_eps)], f"{name}.padded")
        root = graph.node("Sqrt", [mean], f"{name}.root")
        y = graph.node("Div", [x, root], f"{name}.normed")
        gamma = graph.constant(f"{name}.weight", self.weights(f"{name}.weight"))
        return self._cast(graph.node("Mul", [y, gamma], f"{name}.scaled"), _F16)

    def _add(self, residual: str, x: str, output: str) -> str:
        return self.graph.node("Add", [residual, self._cast(x, _F32)], output)

    def _cast(self, x: str, kind: int, output: str | None = None) -> str:
        return self.graph.node("Cast", [x], output or f"{x}.cast", to=kind)

    def _slice(self, x: str, start: str, end: str, axis: int, output: str) -> str:
        return self.graph.node("Slice", [x, start, end, self._ints(axis)], output)

    def _ints(self, *values: int) -> str:
        return self.graph.constant(f"ints{list(values)}", np.array(values, np.int64))

    def _scalar(self, value: float, dtype: type[np.generic] = np.float32) -> str:
        return self.graph.constant(f"{dtype.__name__}({value!r})", np.array(value, dtype))
