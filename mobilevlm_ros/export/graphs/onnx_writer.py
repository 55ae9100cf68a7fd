# SPDX-License-Identifier: Apache-2.0
"""Writes an ONNX model node by node, weights straight to disk: memory holds one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""Newest that TensorRT 8.5 reads; has LayerNormalization."""
IR_VERSION = 10
"""Newest that ONNX Runtime 1.20 reads."""
CONTRIB = "com.microsoft"

_INLINE_BYTES = 1024  # small constants stay in the graph, where shape inference needs them
_ALIGNMENT = 4096  # of large tensors in the data file, so that a runtime can map them


class GraphWriter:
    """Collects nodes; `save` writes `path`, whose weights lie beside it in `path`.data.

    Use as a context manager: on an error the data file is closed (whoever owns the directory removes it).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data_path = path.with_name(path.name + ".data")
        self._data = self.data_path.open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._names: set[str] = set()

    def __enter__(self) -> GraphWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    @property
    def files(self) -> list[str]:
        """Names of the files that `save` leaves."""
        return [self.path.name, self.data_path.name]

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declares a graph input; a string is a dimension known at run time."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> None:
        """Declares tensor `name` a graph output."""
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Adds an initializer and returns its name. The same name twice is the same constant."""
        if name in self._names:
            return name
        self._names.add(name)
        array = np.ascontiguousarray(array)
        if array.nbytes <= _INLINE_BYTES:
            self._initializers.append(numpy_helper.from_array(array, name))
            return name
        tensor = TensorProto(
            name=name,
            dims=array.shape,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        position = self._data.tell()
        if array.nbytes >= _ALIGNMENT:
            self._data.write(bytes(-position % _ALIGNMENT))
            position = self._data.tell()
        self._data.write(array.data)
        entries = {"location": self.data_path.name, "offset": position, "length": array.nbytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        self._initializers.append(tensor)
        return name

    def int4(self, name: str, levels: NDArray[np.int8]) -> str:
        """Adds integers from -8 to 7 [K, N], N even, as a constant of 4 bits each (opset 21)."""
        nibbles = levels.view(np.uint8) & 15
        self.constant(name, nibbles[:, ::2] | nibbles[:, 1::2] << 4)
        tensor = self._initializers[-1]
        tensor.data_type = TensorProto.INT4
        tensor.dims[:] = levels.shape
        return name

    def weight(self, name: str, array: NDArray[np.float32], store: type[np.generic] = np.float32) -> str:
        """A f32 constant, stored as `store` (float16 halves the file) and cast when the model is loaded."""
        if store is np.float32:
            return self.constant(name, array.astype(np.float32, copy=False))
        self.constant(name + ".stored", array.astype(store))
        return self.node("Cast", [name + ".stored"], name, to=TensorProto.FLOAT)

    def node(
        self, op: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any
    ) -> str:
        """Adds a node with one output and returns that output's name."""
        return self.nodes(op, inputs, [output], domain=domain, **attributes)[0]

    def nodes(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> Sequence[str]:
        """Adds a node with several outputs; '' leaves an optional one out."""
        name = next(output for output in outputs if output)
        self._nodes.append(
            helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **attributes)
        )
        return outputs

    def save(self, name: str, opset: int = OPSET) -> None:
        """Writes the model; `name` is the graph's."""
        self._data.flush()
        os.fsync(self._data.fileno())
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", opset)]
        if any(node.domain == CONTRIB for node in self._nodes):
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mobilevlm_ros"
        )
        self.path.write_bytes(model.SerializeToString(deterministic=True))


def _value(name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
