# SPDX-License-Identifier: Apache-2.0
"""Every operator of the graphs for TensorRT against the parser's own tables, version by version.

test/data/tensorrt/operators.json keeps the facts (operator, types, opset) of those we could use, and where
they are from.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, shape_inference

from mobilevlm_ros.checkpoints.random_weights import CONFIGS
from mobilevlm_ros.engine.tensorrt import names
from mobilevlm_ros.export.graphs.gpu import export_gpu
from mobilevlm_ros.export.graphs.vision import export_vision
from mobilevlm_ros.model.mobilevlm import MobileVLM

TABLES = json.loads((Path(__file__).parents[2] / "data" / "tensorrt" / "operators.json").read_text())
TYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT8: "INT8",
    TensorProto.INT4: "INT4",
    TensorProto.BOOL: "BOOL",
}
CONSTANT_INPUTS = {"Slice": (3,), "ReduceMean": (1,), "Unsqueeze": (1,), "Pad": (1,)}
"""Operators to the inputs that a version at least wants as constants."""
EXCEPTIONS = {
    # The table of 8.5 forgets it; Cast in its source takes UINT8 to FLOAT and HALF.
    ("8.5", "Cast", "UINT8"),
}


def unsupported(path: Path, version: str) -> set[str]:
    """What the parser of a TensorRT version does not list, of a graph."""
    table = TABLES[version]
    model = shape_inference.infer_shapes(onnx.load(path, load_external_data=False), data_prop=True)
    graph = model.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    constants = set(kinds)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        kinds[value.name] = value.type.tensor_type.elem_type
    found = set()
    for node in graph.node:
        if node.op_type not in table["operators"] or node.domain:
            found.add(f"{node.domain}{node.op_type}")
            continue
        data = node.input[1] if node.op_type == "Where" else node.input[0]
        kind = TYPES[kinds[data]]
        if kind == "INT64" and version.startswith("8"):
            kind = "INT32"  # as its parser does
        if (
            kind not in table["operators"][node.op_type].split()
            and (version, node.op_type, kind) not in EXCEPTIONS
        ):
            found.add(f"{node.op_type}({kind})")
        for index in CONSTANT_INPUTS.get(node.op_type, ()):
            if index < len(node.input) and node.input[index] not in constants:
                found.add(f"{node.op_type}(input {index} computed)")
    return found


def opset(path: Path) -> int:
    return onnx.load(path, load_external_data=False).opset_import[0].version


@pytest.fixture(scope="module", params=["ldpnet", "ldpnetv2"])
def graphs(request, tmp_path_factory) -> Path:
    """A folder with every graph that a bundle can hold for GPUs."""
    folder = tmp_path_factory.mktemp("graphs")
    config = dataclasses.replace(CONFIGS["tiny"], projector_type=request.param)
    model = MobileVLM(config)
    model.initialize()
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    export_vision(state.__getitem__, config, folder / "vision.onnx")
    files = export_gpu(["tensorrt", "tensorrt8"], state.__getitem__, config.language, folder)
    assert {names.VISION, names.DECODER, names.DECODER_8} <= set(files)
    for name in files:
        if name.endswith(".onnx"):
            onnx.checker.check_model(str(folder / name), full_check=True)
    return folder


@pytest.mark.parametrize("version", TABLES)
def test_every_version_lists_what_encoder_and_16_bit_decoder_use(graphs, version):
    assert unsupported(graphs / names.VISION, version) == set()
    assert unsupported(graphs / names.DECODER_8, version) == set()
    assert max(opset(graphs / names.VISION), opset(graphs / names.DECODER_8)) <= TABLES[version]["opset"]


def test_the_4_bit_decoder_is_for_10_and_newer(graphs):
    for version in ("8.5", "8.6"):
        assert unsupported(graphs / names.DECODER, version) == {"DequantizeLinear(INT4)"}
    for version in ("10.1", "10.15"):
        assert unsupported(graphs / names.DECODER, version) == set()
    # Blocks need opset 21. 10.1 documents 20, but its parser reads blocks from the scales' shape, and its
    # source sets no upper bound; 10.15 documents 24 and 11 documents 25.
    assert (opset(graphs / names.DECODER), TABLES["10.1"]["opset"], TABLES["10.15"]["opset"]) == (21, 20, 24)


def test_the_graph_for_cpus_would_not_do(graphs):
    """Why there is another one: this is what the check looks like when it finds something."""
    assert unsupported(graphs / "vision.onnx", "8.5") == {"LayerNormalization"}
    assert unsupported(graphs / "vision.onnx", "8.6") == set()  # but in f32 throughout


def test_4_bit_weights_are_as_the_parser_wants_them(graphs):
    """Its checks for DequantizeLinear (onnx-tensorrt 10.1, QuantDequantLinearHelper)."""
    model = onnx.load(graphs / names.DECODER)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    seen = 0
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        seen += 1
        assert len(node.input) == 2  # no zero point: symmetric
        weight, scale = (constants[name] for name in node.input)
        assert weight.data_type == TensorProto.INT4 and weight.dims[-1] % 2 == 0
        values = onnx.numpy_helper.to_array(scale)
        assert scale.data_type == TensorProto.FLOAT16 and (values > 0).all()
        attributes = {a.name: a.i for a in node.attribute}
        assert attributes["axis"] == 0
        assert list(scale.dims) == [weight.dims[0] // attributes["block_size"], weight.dims[1]]
    assert seen == 2 * 5 + 1  # qkv, o, gate, up, down of two layers; the head
