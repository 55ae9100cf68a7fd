# SPDX-License-Identifier: Apache-2.0
"""The graphs that GPUs get: those of the CPU with 16-bit activations, over the same weight files.

Only the nodes are written anew (some kilobytes); every large weight stays where the CPU's graph has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilevlm_ros.export.graphs.onnx_writer import CONTRIB

HALF_SUFFIX = ".half"
_STORED = ".stored"  # weights that GraphWriter.weight keeps in 16 bits

# What TensorRT's guides ask for: products in 16 bits on the tensor cores, sums over a row in 32.
_PRODUCTS = frozenset(("MatMul", "Conv", "AveragePool"))
_EXACT = frozenset(("Softmax", "ReduceMean"))
_MOVES = frozenset(("Transpose", "Reshape", "Slice", "Pad", "Identity"))
_POINTWISE = frozenset(("Add", "Mul", "Div", "Sigmoid", "Erf", "HardSwish", "HardSigmoid", "Relu"))


def half_vision(path: Path) -> bytes | None:
    """The encoder graph `path` with every type explicit, for TensorRT and for ONNX Runtime on a GPU.

    Products are f16; layer norms (decomposed: TensorRT 8.5 knows no LayerNormalization), softmax and the
    residual stream are f32, as activations of CLIP's towers overflow f16. Returns the model's bytes, to lie
    beside `path`; None when the graph is quantised, which GPUs do not run.
    """
    model = onnx.load(path, load_external_data=False)
    if any(node.domain == CONTRIB for node in model.graph.node):
        return None
    return _Typed(model).rewrite().SerializeToString(deterministic=True)


def half_decoder(path: Path) -> bytes:
    """The decoder graph `path` for ONNX Runtime on a GPU: embeddings, KV cache and logits are f16.

    Attention is f16 only there, and takes neither a mask nor positions. Returns the model's bytes, to lie
    beside `path`.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    full = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    cast: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0].endswith(_STORED):
            cast[node.output[0]] = node.input[0]  # is f16 already
            continue
        for index, name in enumerate(node.input):
            if name in full and name not in cast:
                cast[name] = name + HALF_SUFFIX
                nodes.append(_cast(name, cast[name], TensorProto.FLOAT16))
            node.input[index] = cast.get(name, name)
        if node.op_type == "GroupQueryAttention":
            del node.input[9:]
        if node.op_type == "MatMulNBits":
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 0  # the activations' own type
        nodes.append(node)
    _replace_nodes(graph, nodes)
    return model.SerializeToString(deterministic=True)


class _Typed:
    """Decides each tensor's type on the way through a graph, and puts a Cast where two types meet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.types: dict[str, int] = dict(self.constants)  # of every tensor met so far
        self.types.update((value.name, value.type.tensor_type.elem_type) for value in model.graph.input)
        self.stored: dict[str, str] = {}
        self.made: set[str] = set()

    def rewrite(self) -> onnx.ModelProto:
        graph = self.model.graph
        outputs = {value.name for value in graph.output}
        for node in graph.node:
            if node.op_type == "Cast":
                self._cast_node(node)
            elif node.op_type == "LayerNormalization":
                self._norm(node)
            else:
                self._add(node, TensorProto.FLOAT if node.output[0] in outputs else self._type_of(node))
        _replace_nodes(graph, self.nodes)
        return self.model

    def _type_of(self, node: onnx.NodeProto) -> int:
        if node.op_type in _PRODUCTS:
            return TensorProto.FLOAT16
        if node.op_type in _EXACT:
            return TensorProto.FLOAT
        if node.op_type in _MOVES:
            return self.types[node.input[0]]
        if node.op_type in _POINTWISE:
            met = {self.types[name] for name in node.input if name not in self.constants}
            return TensorProto.FLOAT16 if met == {TensorProto.FLOAT16} else TensorProto.FLOAT
        raise ValueError(f"{node.op_type} has no rule for 16-bit engines yet")

    def _add(self, node: onnx.NodeProto, kind: int) -> None:
        inputs = [self._as(name, kind) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        self.nodes.append(node)
        self.types[node.output[0]] = kind

    def _as(self, name: str, kind: int) -> str:
        """The tensor in the type `kind`; other than floats stay what they are."""
        if kind == TensorProto.FLOAT16 and name in self.stored:
            return self.stored[name]
        if name not in self.types and name in self.stored:  # the f32 of weights kept in 16 bits
            return self._cast_of(self.stored[name], name, TensorProto.FLOAT)
        if self.types[name] == kind or self.types[name] not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            return name
        suffix = HALF_SUFFIX if kind == TensorProto.FLOAT16 else ".full"
        return self._cast_of(name, name + suffix, kind)

    def _cast_of(self, name: str, result: str, kind: int) -> str:
        if result not in self.made:
            self.made.add(result)
            self.nodes.append(_cast(name, result, kind))
        return result

    def _cast_node(self, node: onnx.NodeProto) -> None:
        source, result = node.input[0], node.output[0]
        if source.endswith(_STORED):
            self.stored[result] = source
            return
        self.nodes.append(node)
        self.types[result] = next(a.i for a in node.attribute if a.name == "to")

    def _norm(self, node: onnx.NodeProto) -> None:
        """x - mean first, then its square by Mul: Pow of large values is what overflows in TensorRT 8."""
        x, weight, bias = (self._as(name, TensorProto.FLOAT) for name in node.input)
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        name = node.output[0]
        eps = f"epsilon({epsilon!r})"
        if eps not in self.constants:
            self.constants[eps] = TensorProto.FLOAT
            tensor = numpy_helper.from_array(np.array(epsilon, np.float32), eps)
            self.model.graph.initializer.append(tensor)
        steps: list[tuple[str, list[str], str]] = [
            ("ReduceMean", [x], "mean"),
            ("Sub", [x, f"{name}.mean"], "centred"),
            ("Mul", [f"{name}.centred", f"{name}.centred"], "square"),
            ("ReduceMean", [f"{name}.square"], "variance"),
            ("Add", [f"{name}.variance", eps], "padded"),
            ("Sqrt", [f"{name}.padded"], "deviation"),
            ("Div", [f"{name}.centred", f"{name}.deviation"], "normed"),
            ("Mul", [f"{name}.normed", weight], "scaled"),
        ]
        for op, inputs, suffix in steps:
            more: dict[str, Any] = {"axes": [-1], "keepdims": 1} if op == "ReduceMean" else {}
            result = f"{name}.{suffix}"
            self.nodes.append(helper.make_node(op, inputs, [result], name=result, **more))
        self.nodes.append(helper.make_node("Add", [f"{name}.scaled", bias], [name], name=name))
        self.types[name] = TensorProto.FLOAT


def _cast(name: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [result], name=result, to=kind)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Also drops inputs and constants that no node reads any more."""
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for collection in (graph.initializer, graph.input):
        kept = [item for item in collection if item.name in used]
        del collection[:]
        collection.extend(kept)
