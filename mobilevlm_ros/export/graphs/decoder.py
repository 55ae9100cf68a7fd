# SPDX-License-Identifier: Apache-2.0
"""decoder.onnx: MobileLLaMA from embeddings to logits, written layer by layer from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.graphs.onnx_writer import CONTRIB, GraphWriter
from mobilevlm_ros.export.graphs.tree_decoder import write_tree
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.export.quantization.round_to_nearest import Quantizer, round_to_nearest
from mobilevlm_ros.model.config import LanguageConfig

_END = np.iinfo(np.int64).max


def export_decoder(
    weights: Weights,
    config: LanguageConfig,
    path: Path,
    precision: DecoderPrecision,
    on_layer: Callable[[], None] = lambda: None,
    quantizer: Quantizer = round_to_nearest,
) -> list[str]:
    """Writes `path`, its data file and its tree (export_tree), and returns their names.

    `on_layer` is called after each layer and after the head.

    Inputs: `embeddings` f32 [B, T, H]; `num_logits` i64 [1], trailing positions to compute logits for;
    `past.{i}.key/.value` f32 [B, kv_heads, capacity, head_dim], bound to the same memory as the outputs
    `present.{i}.key/.value`, so that new tokens are written in place; `seqlens_k` i32 [B], tokens in the
    cache after this call less 1; `total_sequence_length` i32 [1], tokens in the cache after this call.
    Output: `logits` f32 [B, num_logits, V].
    Raises CheckpointError when the geometry cannot be run.
    """
    if config.head_dim % 16:
        raise CheckpointError(
            f"head size {config.head_dim} cannot be exported: ONNX Runtime needs a multiple of 16; "
            "use the torch backend"
        )
    with GraphWriter(path) as graph:
        DecoderGraph(graph, weights, config, precision, quantizer).write(on_layer)
        graph.save("mobilellama")
        return [*graph.files, write_tree(path)]


class DecoderGraph:
    """The decoder's nodes; `write` adds them all."""

    def __init__(
        self,
        graph: GraphWriter,
        weights: Weights,
        config: LanguageConfig,
        precision: DecoderPrecision,
        quantizer: Quantizer,
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.config = config
        self.precision = precision
        self.quantizer = quantizer

    def write(self, on_layer: Callable[[], None]) -> None:
        """Adds the whole graph; `on_layer` is called after each layer and after the head."""
        graph, config = self.graph, self.config
        residual = self._inputs()
        graph.input("num_logits", np.int64, [1])
        graph.constant("axis.tokens", np.array([1], np.int64))
        graph.constant("end", np.array([_END], np.int64))
        graph.node("Neg", ["num_logits"], "first_logit")

        normed = self._norm(residual, "model.layers.0.input_layernorm")
        last = config.num_hidden_layers - 1
        for i in range(config.num_hidden_layers):
            mixed = self._attention(normed, i)
            if i == last:
                # From here on nothing mixes positions: compute only those whose logits are wanted.
                mixed, residual = self._trailing(mixed), self._trailing(residual)
            normed, residual = self._after_attention(mixed, residual, i)
            on_layer()
        head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        self._matmul(normed, "lm_head", self.weights(f"{head}.weight"), "logits")
        graph.output("logits", np.float32, ["batch", "num_logits", config.vocab_size])
        on_layer()

    def _inputs(self) -> str:
        """Declares what every graph reads, and returns the embeddings' name."""
        graph, config = self.graph, self.config
        embeddings = graph.input("embeddings", np.float32, ["batch", "tokens", config.hidden_size])
        graph.input("seqlens_k", np.int32, ["batch"])
        graph.input("total_sequence_length", np.int32, [1])
        cosine, sine = rotary_cache(config)
        graph.constant("rotary.cosine", cosine)
        graph.constant("rotary.sine", sine)
        return embeddings

    def _after_attention(self, mixed: str, residual: str, layer: int) -> tuple[str, str]:
        """The rest of a layer: the next one's normalised input, and the residual."""
        name = f"model.layers.{layer}"
        mixed = self._linear(mixed, f"{name}.self_attn.o_proj")
        normed, residual = self._add_norm(mixed, residual, f"{name}.post_attention_layernorm")
        mixed = self._mlp(normed, f"{name}.mlp")
        final = layer == self.config.num_hidden_layers - 1
        following = "model.norm" if final else f"model.layers.{layer + 1}.input_layernorm"
        return self._add_norm(mixed, residual, following)

    def _attention(self, x: str, layer: int) -> str:
        graph, config = self.graph, self.config
        name = f"model.layers.{layer}.self_attn"
        qkv = self._fused(x, f"{name}.qkv_proj", [f"{name}.{part}_proj" for part in "qkv"])
        shape: list[int | str] = ["batch", config.num_key_value_heads, "capacity", config.head_dim]
        past = [graph.input(f"past.{layer}.{kind}", np.float32, shape) for kind in ("key", "value")]
        present = [f"present.{layer}.{kind}" for kind in ("key", "value")]
        graph.nodes(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_sequence_length", "rotary.cosine", "rotary.sine"],
            [f"{name}.output", *present],
            domain=CONTRIB,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )
        for output in present:
            graph.output(output, np.float32, shape)
        return f"{name}.output"

    def _mlp(self, x: str, name: str) -> str:
        # As one matrix: the input is rounded once, and threads meet once, which a single token feels.
        both = self._fused(x, f"{name}.gate_up_proj", [f"{name}.gate_proj", f"{name}.up_proj"])
        width = self.config.intermediate_size
        sizes = self.graph.constant("gate_up.sizes", np.array([width, width], np.int64))
        gate, up = self.graph.nodes("Split", [both, sizes], [f"{name}.gate", f"{name}.up"], axis=-1)
        gate = self.graph.node(
            "Mul", [gate, self.graph.node("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu"
        )
        return self._linear(self.graph.node("Mul", [gate, up], f"{name}.product"), f"{name}.down_proj")

    def _fused(self, x: str, name: str, parts: Sequence[str]) -> str:
        return self._matmul(x, name, np.concatenate([self.weights(f"{part}.weight") for part in parts]))

    def _linear(self, x: str, name: str) -> str:
        return self._matmul(x, name, self.weights(f"{name}.weight"))

    def _matmul(self, x: str, name: str, weight: NDArray[np.float32], output: str | None = None) -> str:
        """x @ weight.T in the precision that `name` calls for; weight f32 [N, K]."""
        graph, output = self.graph, output or f"{name}.output"
        bits = self.precision.bits_of(name)
        if bits == 32:
            return graph.node("MatMul", [x, graph.constant(f"{name}.weight", weight.T)], output)
        matrix = self.quantizer(name, weight, bits, self.precision.block_size)
        rows, columns = matrix.shape
        packed = graph.constant(f"{name}.packed", matrix.packed)
        scales = graph.weight(
            f"{name}.scales", matrix.scales.reshape(-1).astype(np.float32), store=np.float16
        )
        return graph.node(
            "MatMulNBits",
            [x, packed, scales],
            output,
            domain=CONTRIB,
            N=rows,
            K=columns,
            bits=bits,
            block_size=matrix.block_size,
            accuracy_level=self.precision.accuracy_level,
        )

    def _norm(self, x: str, name: str) -> str:
        gamma = self.graph.constant(f"{name}.weight", self.weights(f"{name}.weight"))
        return self.graph.node(
            "SimplifiedLayerNormalization",
            [x, gamma],
            f"{name}.output",
            axis=-1,
            epsilon=self.config.rms_norm_eps,
            stash_type=1,
        )

    def _add_norm(self, x: str, residual: str, name: str) -> tuple[str, str]:
        """RMSNorm of x + residual, and that sum."""
        gamma = self.graph.constant(f"{name}.weight", self.weights(f"{name}.weight"))
        outputs = [f"{name}.output", "", "", f"{name}.sum"]
        self.graph.nodes(
            "SkipSimplifiedLayerNormalization",
            [x, residual, gamma],
            outputs,
            domain=CONTRIB,
            epsilon=self.config.rms_norm_eps,
        )
        return outputs[0], outputs[3]

    def _trailing(self, x: str) -> str:
        return self.graph.node("Slice", [x, "first_logit", "end", "axis.tokens"], f"{x}.trailing")


def rotary_cache(config: LanguageConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines f32 [context_length, head_dim / 2]; position interpolation divides the positions."""
    even = np.arange(0, config.head_dim, 2, dtype=np.float32)
    frequencies = (config.rope_theta ** -(even / np.float32(config.head_dim))).astype(np.float32)
    positions = np.arange(config.context_length, dtype=np.float32) / np.float32(config.rope_factor)
    angles = np.outer(positions, frequencies)
    return np.cos(angles), np.sin(angles)
