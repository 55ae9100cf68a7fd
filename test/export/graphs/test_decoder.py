# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.engine.torch.backend import TorchLanguage
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.graphs.decoder import export_decoder
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.export.quantization.round_to_nearest import quantize
from mobilevlm_ros.model.config import LanguageConfig
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest expected value."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def all_logits(engine, inputs: np.ndarray) -> np.ndarray:
    return engine.forward(inputs, engine.new_cache(len(inputs)), inputs.shape[1])


@pytest.mark.parametrize(("checkpoint", "outputs"), [("tiny-ldpnet", "v1.npz"), ("tiny-ldpnetv2", "v2.npz")])
@pytest.mark.parametrize("image", ["landscape", "portrait"])
def test_logits_and_greedy_answer_are_the_official_ones(parity, parity_bundle, checkpoint, outputs, image):
    language = load_runtime(parity_bundle(checkpoint), threads=1).language
    expected = np.load(parity / outputs)
    ids = expected[f"{image}/input_ids"][0]
    at = int(np.flatnonzero(ids == IMAGE_TOKEN)[0])
    parts = [language.embed(ids[:at]), expected[f"{image}/projector"][0], language.embed(ids[at + 1 :])]
    prompt = np.concatenate(parts)[None]
    cache = language.new_cache()
    logits = language.forward(prompt, cache, prompt.shape[1])
    assert relative(logits, expected[f"{image}/logits"]) < 1e-4
    answer = []
    row = logits[0, -1]
    for _ in range(20):
        answer.append(int(row.argmax()))
        row = language.forward(language.embed(np.array(answer[-1:]))[None], cache)[0, -1]
    assert answer == expected[f"{image}/greedy"][0].tolist()


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"num_key_value_heads": 2},
        {"hidden_size": 128},  # heads of 32, as nano's
        {"hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 2},  # 80, as the 2.7B model's
        {"hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1},  # 128, as the 1.4B model's
        {"rope_factor": 4.0},
        {"tie_word_embeddings": True},
        {"num_hidden_layers": 1, "rms_norm_eps": 1e-2, "rope_theta": 500.0},
    ],
    ids=str,
)
def test_f32_graph_equals_the_definition(language_model, export, embeddings, geometry):
    model = language_model(**geometry)
    inputs = embeddings(2, 100, model.config.language.hidden_size)
    assert relative(all_logits(export(model), inputs), all_logits(TorchLanguage(model), inputs)) < 1e-4


def test_position_interpolation_reaches_the_longer_context(language_model, export, embeddings):
    model = language_model(rope_factor=4.0)
    engine = export(model)
    assert engine.max_length == 512
    inputs = embeddings(1, 512)
    assert relative(all_logits(engine, inputs), all_logits(TorchLanguage(model), inputs)) < 1e-4


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [32, 128])
def test_quantised_graph_equals_the_definition_on_dequantised_weights(
    language_model, export, embeddings, bits, block_size
):
    model = language_model(num_key_value_heads=2)
    precision = DecoderPrecision(bits, block_size, accuracy_level=0)
    engine, fast = export(model, precision), export(model, DecoderPrecision(bits, block_size))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "lm_head.weight" or (name.startswith("model.layers.") and "_proj" in name):
                restored = quantize(parameter.numpy(), bits, block_size).dequantize()
                parameter.copy_(torch.from_numpy(restored.copy()))
    inputs = embeddings(2, 9)
    expected = all_logits(TorchLanguage(model), inputs)
    assert relative(all_logits(engine, inputs), expected) < 1e-4
    assert relative(all_logits(fast, inputs), expected) < 0.05  # activations in 8 bits


def test_matrices_can_have_bits_of_their_own(language_model, export, embeddings, tmp_path):
    model = language_model()
    overrides = {"lm_head": 8, "*.down_proj": 32}
    engine = export(model, DecoderPrecision(overrides=overrides, accuracy_level=0))
    nodes = {
        node.name: node for node in onnx.load(tmp_path / "decoder.onnx", load_external_data=False).graph.node
    }
    bits = {
        name: next(a.i for a in node.attribute if a.name == "bits")
        for name, node in nodes.items()
        if node.op_type == "MatMulNBits"
    }
    assert bits["logits"] == 8
    assert bits["model.layers.0.self_attn.qkv_proj.output"] == 4
    assert nodes["model.layers.1.mlp.down_proj.output"].op_type == "MatMul"
    assert np.isfinite(all_logits(engine, embeddings(1, 3))).all()


def test_only_the_trailing_positions_reach_the_last_mlp(language_model, export, tmp_path):
    export(language_model())
    graph = onnx.load(tmp_path / "decoder.onnx", load_external_data=False).graph
    made = {output: node for node in graph.node for output in node.output}
    projection = made["model.layers.1.self_attn.o_proj.output"]
    assert made[projection.input[0]].op_type == "Slice"


def test_oldest_onnxruntime_for_each_precision():
    assert DecoderPrecision().least_onnxruntime == "1.20"
    assert DecoderPrecision(overrides={"lm_head": 8}).least_onnxruntime == "1.22"


def test_settings_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bits must be"):
        DecoderPrecision(bits=5)
    with pytest.raises(ValueError, match="block size"):
        DecoderPrecision(block_size=100)
    odd = LanguageConfig(hidden_size=48, num_attention_heads=2, num_key_value_heads=2)
    with pytest.raises(CheckpointError, match="multiple of 16"):
        export_decoder(lambda name: np.zeros(0, np.float32), odd, tmp_path / "d.onnx", DecoderPrecision())
