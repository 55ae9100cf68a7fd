# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, shape_inference

from mobilevlm_ros.checkpoints.random_weights import CONFIGS
from mobilevlm_ros.export.graphs.half_precision import half_vision
from mobilevlm_ros.export.graphs.vision import export_vision
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.image import normalize

TINY = CONFIGS["tiny"]


def model_of(**changes) -> MobileVLM:
    torch.manual_seed(2)
    model = MobileVLM(dataclasses.replace(TINY, **changes))
    model.initialize(std=0.2)
    return model.eval()


def export(model: MobileVLM, folder) -> onnx.ModelProto:
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    export_vision(state.__getitem__, model.config, folder / "vision.onnx")
    (folder / "half.onnx").write_bytes(half_vision(folder / "vision.onnx"))
    onnx.checker.check_model(str(folder / "half.onnx"), full_check=True)
    return onnx.load(folder / "half.onnx", load_external_data=False)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"projector_type": "ldpnet"},
        {"projector_type": "linear"},
        {"projector_type": "mlp2x_gelu"},
        {"vision": dataclasses.replace(TINY.vision, hidden_act="gelu")},
    ],
    ids=str,
)
def test_the_16_bit_encoder_equals_the_definition(tmp_path, changes):
    model = model_of(**changes)
    export(model, tmp_path)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = model.encode_images(torch.from_numpy(normalize(pixels))).numpy()
    actual = onnxruntime.InferenceSession(tmp_path / "half.onnx").run(None, {"pixels": pixels})[0]
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("projector", ["ldpnet", "ldpnetv2"])
def test_products_are_16_bit_and_sums_over_a_row_32(tmp_path, projector):
    graph = shape_inference.infer_shapes(export(model_of(projector_type=projector), tmp_path)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    by_type: dict[str, set[int]] = {}
    for node in graph.node:
        by_type.setdefault(node.op_type, set()).add(kinds[node.output[0]])
    for product in ("MatMul", "Conv"):
        assert by_type[product] == {TensorProto.FLOAT16}
    for exact in ("Softmax", "ReduceMean", "Sqrt", "Sub"):
        assert by_type[exact] == {TensorProto.FLOAT}
    streams = [kinds[node.output[0]] for node in graph.node if node.name.endswith(".attended")]
    assert streams == [TensorProto.FLOAT] * 2
    assert "LayerNormalization" not in by_type


def test_activations_whose_squares_do_not_fit_16_bits_are_read_right(tmp_path):
    """CLIP's towers have a few in the thousands."""
    model = model_of()
    with torch.no_grad():
        for layer in model.get_submodule("model.vision_tower.vision_tower.vision_model.encoder.layers"):
            layer.mlp.fc2.bias[3] = 20000.0
    export(model, tmp_path)
    pixels = np.random.default_rng(3).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = model.encode_images(torch.from_numpy(normalize(pixels))).numpy()
    actual = onnxruntime.InferenceSession(tmp_path / "half.onnx").run(None, {"pixels": pixels})[0]
    np.testing.assert_allclose(actual, expected, atol=1e-2 * np.abs(expected).max())


def test_weights_are_shared_with_the_graph_for_cpus(tmp_path):
    model = model_of()
    graph = export(model, tmp_path).graph
    places = {e.value for t in graph.initializer for e in t.external_data if e.key == "location"}
    assert places == {"vision.onnx.data"}
    assert (tmp_path / "half.onnx").stat().st_size < 100_000


def test_an_8_bit_encoder_has_no_16_bit_twin(tmp_path):
    model = model_of()
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    export_vision(state.__getitem__, model.config, tmp_path / "vision.onnx", "int8")
    assert half_vision(tmp_path / "vision.onnx") is None
