# SPDX-License-Identifier: Apache-2.0
"""vision.onnx: CLIP tower and projector from raw pixels to image embeddings, written layer by layer.

Standard operators only, so that TensorRT reads the same file as ONNX Runtime (except with 8-bit weights).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.graphs.onnx_writer import GraphWriter
from mobilevlm_ros.export.graphs.vision_layers import STORES, Layers
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.model.config import LDPV2_GRID, MobileVLMConfig
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD

_TOWER = "model.vision_tower.vision_tower.vision_model"
_PROJECTOR = "model.mm_projector"
_PROJECTOR_NORM_EPS = 1e-5  # of the LayerNorms inside ldpnet, in the official code


def export_vision(
    weights: Weights,
    config: MobileVLMConfig,
    path: Path,
    store: str = "fp16",
    on_layer: Callable[[], None] = lambda: None,
) -> list[str]:
    """Writes `path` and its data file, and returns their names.

    `store` says how matrices are stored: 'fp16' or 'fp32', which compute in f32; 'int8', which computes in 8
    bits, with one scale for all activations of a product; or 'int8-block', with one for each 32 of them.
    `on_layer` is called after each tower layer and after the projector.
    Input `pixels` u8 [B, S, S, 3] RGB; output `image_embeddings` f32 [B, N, H].
    Raises CheckpointError when the projector does not fit the tower's grid.
    """
    if store not in STORES:
        raise ValueError(f"store must be one of {STORES}, not {store!r}")
    with GraphWriter(path) as graph:
        size = config.vision.image_size
        pixels = graph.input("pixels", np.uint8, ["batch", size, size, 3])
        layers = Layers(graph, weights, store)
        tokens = _tower(layers, config, pixels, on_layer)
        embeddings = _projector(layers, config, tokens)
        graph.node("Identity", [embeddings], "image_embeddings")
        shape: list[int | str] = ["batch", config.num_image_tokens, config.language.hidden_size]
        graph.output("image_embeddings", np.float32, shape)
        on_layer()
        graph.save("mobilevlm_vision")
        return graph.files


def _tower(layers: Layers, config: MobileVLMConfig, pixels: str, on_layer: Callable[[], None]) -> str:
    """The selected layer's features [B, N, D]."""
    eps = config.vision.layer_norm_eps
    x = _embed_patches(layers, config, pixels)
    x = layers.norm(x, f"{_TOWER}.pre_layrnorm", eps)
    for i in range(config.num_vision_layers):
        name = f"{_TOWER}.encoder.layers.{i}"
        y = _attention(layers, config, layers.norm(x, f"{name}.layer_norm1", eps), f"{name}.self_attn")
        x = layers.op("Add", [x, y], f"{name}.attended")
        y = layers.linear(layers.norm(x, f"{name}.layer_norm2", eps), f"{name}.mlp.fc1")
        y = layers.gelu(y, quick=config.vision.hidden_act == "quick_gelu")
        x = layers.op("Add", [x, layers.linear(y, f"{name}.mlp.fc2")], f"{name}.output")
        on_layer()
    if config.select_feature == "patch":
        end = layers.ints(np.iinfo(np.int64).max)
        x = layers.op("Slice", [x, layers.ints(1), end, layers.ints(1)], f"{_TOWER}.patches")
    return x


def _embed_patches(layers: Layers, config: MobileVLMConfig, pixels: str) -> str:
    """Raw pixels to [B, 1 + N, D], CLIP's normalisation folded into the patch convolution."""
    graph, name, vision = layers.graph, f"{_TOWER}.embeddings", config.vision
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    kernel = layers.weights(f"{name}.patch_embedding.weight") / std
    bias = -(kernel.astype(np.float64) * mean).sum((1, 2, 3))
    x = graph.node("Cast", [pixels], "pixels.float", to=1)
    # Scaled here and not in the kernel, whose values fp16 engines could not hold any more.
    x = graph.node("Mul", [x, layers.scalar(1 / 255)], "pixels.scaled")
    x = graph.node("Transpose", [x], "pixels.channels_first", perm=[0, 3, 1, 2])
    x = graph.node(
        "Conv",
        [
            x,
            graph.constant(f"{name}.patch_embedding.weight", kernel),
            graph.constant(f"{name}.patch_embedding.bias", bias.astype(np.float32)),
        ],
        f"{name}.patches",
        kernel_shape=[vision.patch_size] * 2,
        strides=[vision.patch_size] * 2,
    )
    x = layers.to_tokens(x, vision.hidden_size)
    # The class token enters as the position embedding of an empty first row.
    x = graph.node("Pad", [x, layers.ints(0, 1, 0, 0, 0, 0)], f"{name}.padded")
    positions = layers.weights(f"{name}.position_embedding.weight").copy()
    positions[0] += layers.weights(f"{name}.class_embedding")
    return graph.node("Add", [x, graph.constant(f"{name}.positions", positions)], f"{name}.output")


def _attention(layers: Layers, config: MobileVLMConfig, x: str, name: str) -> str:
    heads = config.vision.num_attention_heads
    size = config.vision.hidden_size // heads
    scales = {"q": size**-0.5, "k": 1.0, "v": 1.0}  # softmax's scale, folded into the query
    order = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    q, k, v = (
        layers.op(
            "Transpose",
            [
                layers.op(
                    "Reshape",
                    [layers.linear(x, f"{name}.{part}_proj", scales[part]), layers.ints(0, 0, heads, size)],
                    f"{name}.{part}_heads",
                )
            ],
            f"{name}.{part}",
            perm=order[part],
        )
        for part in "qkv"
    )
    weights = layers.op(
        "Softmax", [layers.op("MatMul", [q, k], f"{name}.scores")], f"{name}.weights", axis=-1
    )
    y = layers.op(
        "Transpose", [layers.op("MatMul", [weights, v], f"{name}.mixed")], f"{name}.merged", perm=[0, 2, 1, 3]
    )
    y = layers.op("Reshape", [y, layers.ints(0, 0, heads * size)], f"{name}.joined")
    return layers.linear(y, f"{name}.out_proj")


def _projector(layers: Layers, config: MobileVLMConfig, x: str) -> str:
    kind, grid = config.projector_type, config.vision.grid
    if kind.startswith("ldpnetv2"):
        return _ldpnetv2(layers, x, grid, config.language.hidden_size)
    if kind.startswith("ldpnet"):
        return _ldpnet(layers, x, grid)
    if kind == "linear":
        return layers.linear(x, _PROJECTOR)
    depth = int(kind.removeprefix("mlp").removesuffix("x_gelu"))
    return _mlp(layers, x, [f"{_PROJECTOR}.{2 * i}" for i in range(depth)])


def _mlp(layers: Layers, x: str, names: list[str]) -> str:
    x = layers.linear(x, names[0])
    for name in names[1:]:
        x = layers.linear(layers.gelu(x), name)
    return x


def _ldpnet(layers: Layers, x: str, grid: int) -> str:
    name = f"{_PROJECTOR}.model"
    x = _mlp(layers, x, [f"{name}.mlp.1", f"{name}.mlp.3"])
    kept = _inverted_residual(layers, x, f"{name}.mb_block.1.block", grid, stride=1)
    x = layers.op("Add", [x, kept], f"{name}.mb_block.1.sum")
    return _inverted_residual(layers, x, f"{name}.mb_block.2.block", grid, stride=2)


def _inverted_residual(layers: Layers, x: str, name: str, grid: int, *, stride: int) -> str:
    """Depthwise, squeeze-and-excitation, pointwise; 1 x 1 convolutions are matrix products over tokens."""
    x = layers.depthwise(x, f"{name}.0.0", grid, stride=stride)
    x = layers.norm(x, f"{name}.0.1", _PROJECTOR_NORM_EPS)
    x = layers.op("HardSwish", [x], f"{name}.0.output")
    gate = layers.op("ReduceMean", [x], f"{name}.1.mean", axes=[1], keepdims=1)
    gate = layers.op("Relu", [layers.linear(gate, f"{name}.1.fc1")], f"{name}.1.squeezed")
    gate = layers.linear(gate, f"{name}.1.fc2")
    gate = layers.op("HardSigmoid", [gate], f"{name}.1.gate", alpha=1 / 6, beta=0.5)
    x = layers.op("Mul", [x, gate], f"{name}.1.output")
    x = layers.linear(x, f"{name}.2.0", bias=False)
    return layers.norm(x, f"{name}.2.1", _PROJECTOR_NORM_EPS)


def _ldpnetv2(layers: Layers, x: str, grid: int, channels: int) -> str:
    if grid % LDPV2_GRID:
        raise CheckpointError(
            f"ldpnetv2 pools to {LDPV2_GRID} x {LDPV2_GRID}, of which the tower's {grid} x {grid} patches "
            "are no multiple; this checkpoint runs on the torch backend only"
        )
    name = f"{_PROJECTOR}.mlp.mlp"
    x = _mlp(layers, x, [f"{name}.0", f"{name}.2"])
    window = [grid // LDPV2_GRID] * 2
    x = layers.to_grid(x, channels, grid)
    x = layers.op("AveragePool", [x], f"{_PROJECTOR}.dwn", kernel_shape=window, strides=window)
    x = layers.to_tokens(x, channels)
    positional = layers.depthwise(x, f"{_PROJECTOR}.peg.peg.0", LDPV2_GRID, bias=True)
    return layers.op("Add", [positional, x], f"{_PROJECTOR}.output")
