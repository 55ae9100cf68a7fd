# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mobilevlm_ros.checkpoints.random_weights import CONFIGS
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.graphs.onnx_writer import IR_VERSION
from mobilevlm_ros.export.graphs.vision import export_vision
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD, normalize

TINY = CONFIGS["tiny"]  # a grid of 12 x 12 patches


def model_of(**changes) -> MobileVLM:
    torch.manual_seed(2)
    model = MobileVLM(dataclasses.replace(TINY, **changes))
    model.initialize(std=0.2)
    with torch.no_grad():  # so that a swapped norm or bias shows
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def run(model: MobileVLM, folder, pixels: np.ndarray, store="fp32") -> np.ndarray:
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    export_vision(state.__getitem__, model.config, folder / "vision.onnx", store)
    return onnxruntime.InferenceSession(folder / "vision.onnx").run(None, {"pixels": pixels})[0]


def picture(size: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"projector_type": "ldpnet"},
        {"projector_type": "ldpnet", "vision": dataclasses.replace(TINY.vision, image_size=60)},  # odd grid
        {"vision": dataclasses.replace(TINY.vision, image_size=96)},  # pools 2 x 2
        {"projector_type": "linear"},
        {"projector_type": "mlp2x_gelu"},
        {"projector_type": "mlp1x_gelu", "select_feature": "cls_patch"},
        {"select_layer": -1},
        {"select_layer": 1},
        {"vision": dataclasses.replace(TINY.vision, hidden_act="gelu", layer_norm_eps=1e-2)},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_graph_equals_the_definition(tmp_path, changes):
    model = model_of(**changes)
    pixels = picture(model.config.vision.image_size)
    with torch.inference_mode():
        expected = model.encode_images(torch.from_numpy(normalize(pixels))).numpy()
    actual = run(model, tmp_path, pixels)
    assert actual.shape == (2, model.config.num_image_tokens, model.config.language.hidden_size)
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


def test_half_precision_storage_halves_the_file_and_computes_in_f32(tmp_path):
    model = model_of()
    pixels = picture(48)
    full = run(model, tmp_path, pixels)
    sizes = [(tmp_path / "vision.onnx.data").stat().st_size]
    half = run(model, tmp_path, pixels, "fp16")
    sizes.append((tmp_path / "vision.onnx.data").stat().st_size)
    assert sizes[1] < 0.65 * sizes[0]  # norms, convolutions and positions stay f32
    np.testing.assert_allclose(half, full, atol=5e-3 * np.abs(full).max())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(tmp_path / "vision.onnx", options)
    loaded = onnx.load(tmp_path / "loaded.onnx", load_external_data=False)
    # The weights are cast while loading; what is left casts the pixels.
    assert [node.op_type for node in loaded.graph.node].count("Cast") == 1


@pytest.mark.parametrize(("checkpoint", "outputs"), [("tiny-ldpnet", "v1.npz"), ("tiny-ldpnetv2", "v2.npz")])
@pytest.mark.parametrize("image", ["landscape", "portrait"])
def test_embeddings_are_the_official_ones(parity, parity_bundle, checkpoint, outputs, image):
    vision = load_runtime(parity_bundle(checkpoint), threads=1).vision
    expected = np.load(parity / outputs)
    values = expected[f"{image}/pixel_values"].transpose(0, 2, 3, 1)
    pixels = np.rint((values * np.array(IMAGE_STD) + np.array(IMAGE_MEAN)) * 255).astype(np.uint8)
    projected = expected[f"{image}/projector"]
    np.testing.assert_allclose(vision.encode(pixels), projected, atol=2e-4 * np.abs(projected).max())


def test_graph_is_one_that_old_runtimes_read(tmp_path):
    run(model_of(projector_type="ldpnet"), tmp_path, picture(48))
    model = onnx.load(tmp_path / "vision.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


def test_ldpnetv2_needs_a_grid_it_can_pool(tmp_path):
    model = model_of(vision=dataclasses.replace(TINY.vision, image_size=40))
    with pytest.raises(CheckpointError, match="10 x 10"):
        run(model, tmp_path, picture(40))


def cosines(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return (actual * expected).sum(-1) / np.linalg.norm(actual, axis=-1) / np.linalg.norm(expected, axis=-1)


@pytest.mark.parametrize("projector", ["ldpnet", "ldpnetv2"])
@pytest.mark.parametrize("store", ["int8", "int8-block"])
def test_eight_bits_keep_the_direction_of_every_embedding(tmp_path, projector, store):
    """Weights and activations in 8 bits: a quarter of the size of 32, and nearly the same embeddings."""
    model = model_of(projector_type=projector)
    pixels = picture(model.config.vision.image_size)
    with torch.inference_mode():
        expected = model.encode_images(torch.from_numpy(normalize(pixels))).numpy()
    (tmp_path / "full").mkdir()
    run(model, tmp_path / "full", pixels)
    actual = run(model, tmp_path, pixels, store)
    assert cosines(actual, expected).min() > 0.99
    small, full = ((folder / "vision.onnx.data").stat().st_size for folder in (tmp_path, tmp_path / "full"))
    assert small < 0.5 * full  # tiny's position embeddings and norms stay in 32 bits


def test_scales_per_block_survive_massive_activations(tmp_path):
    """Trained towers have channels a hundred times the others, which one scale for all then costs bits."""
    model = model_of(vision=dataclasses.replace(TINY.vision, intermediate_size=1024))  # 32 blocks, one spoilt
    with torch.no_grad():
        for layer in model.vision.encoder.layers:
            layer.mlp.fc1.bias[3] += 100
    pixels = picture(model.config.vision.image_size)
    with torch.inference_mode():
        expected = model.encode_images(torch.from_numpy(normalize(pixels))).numpy()
    whole, block = (np.abs(run(model, tmp_path, pixels, s) - expected).mean() for s in ("int8", "int8-block"))
    assert block < whole / 2
