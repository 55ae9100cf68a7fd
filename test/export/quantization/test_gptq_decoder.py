# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mobilevlm_ros.cli import main
from mobilevlm_ros.engine.bundle import DECODER, Bundle
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.graphs.decoder import export_decoder
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt, CalibrationSet
from mobilevlm_ros.export.quantization.calibration_text import PASSAGES, calibration_text, read_text
from mobilevlm_ros.export.quantization.gptq_decoder import GptqDecoder
from mobilevlm_ros.export.quantization.precision import DecoderPrecision
from mobilevlm_ros.export.quantization.round_to_nearest import quantize
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request, SamplingParams

FEW = CalibrationSet(samples=3)


def prompts_of(embeddings, count=12, tokens=40, tail=25):
    # A few shared directions, so that there are correlations to make use of.
    mix = embeddings(1, 8, seed=99)[0]
    rng = np.random.default_rng(0)
    return [
        CalibrationPrompt(
            rng.normal(size=(tokens, 8)).astype(np.float32) @ mix + embeddings(1, tokens, seed=i)[0] / 5, tail
        )
        for i in range(count)
    ]


def quantised_model(model, quantizer, precision):
    """The model's state with each matrix as `quantizer` makes it."""
    state = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    for index in range(model.config.language.num_hidden_layers):
        name = f"model.layers.{index}"
        for fused, parts in (
            ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("self_attn.o_proj", ("self_attn.o_proj",)),
            ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
            ("mlp.down_proj", ("mlp.down_proj",)),
        ):
            keys = [f"{name}.{part}.weight" for part in parts]
            weight = np.concatenate([state[key] for key in keys])
            made = quantizer(f"{name}.{fused}", weight, 4, precision.block_size).dequantize()
            ends = np.cumsum([len(state[key]) for key in keys])[:-1]
            state.update(zip(keys, np.split(made, ends), strict=True))
    state["lm_head.weight"] = quantizer("lm_head", state["lm_head.weight"], 4, 32).dequantize()
    return {name: torch.from_numpy(array) for name, array in state.items()}


@pytest.mark.parametrize("geometry", [{}, {"num_key_value_heads": 2}])
def test_logits_after_the_image_change_less_than_by_rounding(language_model, embeddings, geometry):
    model, twin = language_model(**geometry), language_model(**geometry)
    precision = DecoderPrecision(block_size=32)
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    prompts = prompts_of(embeddings, 60)
    seen, unseen = prompts[:50], prompts[50:]
    calibrated = GptqDecoder(weights.__getitem__, model.config.language, precision, seen)

    def plain(name, weight, bits, block_size):
        return quantize(weight, bits, block_size)

    errors = []
    for quantizer in (plain, calibrated):
        twin.load_state_dict(quantised_model(model, quantizer, precision))
        with torch.inference_mode():
            pairs = [(model(x), twin(x)) for x in (torch.from_numpy(p.embeddings)[None] for p in unseen)]
        errors.append(np.mean([float((a - b)[:, -25:].square().mean()) for a, b in pairs]))
    assert errors[1] < 0.9 * errors[0]


def test_matrices_kept_in_floats_are_passed_by(language_model, embeddings, tmp_path):
    model = language_model()
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    overrides = {"model.layers.0.*": 32, "*.down_proj": 32, "lm_head": 8}
    precision = DecoderPrecision(overrides=overrides)
    asked = []

    def watched(name, *arguments):
        asked.append(name)
        return quantizer(name, *arguments)

    quantizer = GptqDecoder(weights.__getitem__, model.config.language, precision, prompts_of(embeddings))
    path = tmp_path / DECODER
    export_decoder(weights.__getitem__, model.config.language, path, precision, quantizer=watched)
    parts = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj")
    assert asked == [*(f"model.layers.1.{part}" for part in parts), "lm_head"]


def test_weights_that_are_no_numbers_are_named(language_model, embeddings):
    model = language_model()
    weights = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    weights["model.layers.0.self_attn.o_proj.weight"][:] = np.inf
    quantizer = GptqDecoder(
        weights.__getitem__, model.config.language, DecoderPrecision(), prompts_of(embeddings)
    )
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.self_attn\.o_proj cannot be quantised by GPTQ: the weights"
    ):
        quantizer("lm_head", weights["lm_head.weight"], 4, 32)


@pytest.fixture(scope="module")
def calibrated_bundle(tiny_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("gptq") / "bundle"
    build_bundle(tiny_checkpoint, path, BuildOptions(calibration=FEW))
    return path


def test_a_bundle_says_how_it_was_quantised_and_answers(calibrated_bundle, tiny_bundle):
    manifest = Bundle.open(calibrated_bundle).manifest
    assert manifest.precision["quantization"] == {
        "method": "gptq",
        "samples": 3,
        "seed": 0,
        "pictures": "simulated scenes",
        "passages": PASSAGES,
    }
    plain = Bundle.open(tiny_bundle).manifest
    assert plain.precision["quantization"] == {"method": "rtn"}
    assert {name: entry["bytes"] for name, entry in manifest.files.items()} == {
        name: entry["bytes"] for name, entry in plain.files.items()
    }
    differ = {name for name in plain.files if plain.files[name] != manifest.files[name]}
    # The graphs themselves hold the smallest constants.
    assert {DECODER, f"{DECODER}.data"} <= differ
    assert all(name.startswith("decoder.") for name in differ)
    frame = Frame(np.zeros((48, 64, 3), np.uint8))
    answer = Assistant(load_runtime(calibrated_bundle, threads=1)).ask(
        frame, Request("What?", sampling=SamplingParams(max_tokens=3))
    )
    assert answer.generated_tokens > 0


def test_the_same_calibration_gives_the_same_files(calibrated_bundle, tiny_checkpoint, tmp_path):
    seen = []
    again = build_bundle(
        tiny_checkpoint,
        tmp_path / "again",
        BuildOptions(calibration=FEW),
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert again.manifest.files == Bundle.open(calibrated_bundle).manifest.files
    assert seen == [(step, len(seen) - 1) for step in range(len(seen))]


def test_the_command_line_takes_pictures(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(a_png())
    out = ["-o", str(tmp_path / "bundle"), "--json"]
    build = ["build", str(tiny_checkpoint), *out, "--calibration", str(tmp_path / "pictures")]
    assert main([*build, "--samples", "2", "--seed", "4", "--quality", "2"]) == 0
    made = json.loads(capsys.readouterr().out)["precision"]["quantization"]
    assert made == {"method": "gptq", "samples": 2, "seed": 4, "pictures": "pictures", "passages": PASSAGES}
    for wrong, said in (
        (["--quantize", "rtn", "--quality", "0"], "leave --quantize out"),
        (["--quantize", "gptq", "--samples", "0"], "samples is 0"),
        (["--quantize", "gptq", "--calibration", str(tmp_path / "no")], "no does not exist"),
    ):
        assert main([*build, "--force", *wrong]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "method", "block_size", "overrides"),
    [
        ([], "gptq", 32, {"lm_head": 8}),
        (["--preset", "balanced"], "gptq", 64, {"lm_head": 8}),
        (["--preset", "fast", "--quantize", "rtn"], "rtn", 128, {"lm_head": 8}),
        (["--preset", "accurate", "--block-size", "16"], "gptq", 16, {"lm_head": 8}),
        (["--matrix-bits", "lm_head=4", "--matrix-bits", "*.down_proj=8"], "gptq", 32,
         {"lm_head": 4, "*.down_proj": 8}),
        (["--bits", "32"], "rtn", 32, {}),
        (["--bits", "8"], "rtn", 32, {}),  # nothing to gain
    ],
)  # fmt: skip
def test_what_a_build_does_unless_told(
    tiny_checkpoint, tmp_path, capsys, said, method, block_size, overrides
):
    fast = ["--quality", "0", "--vision", "fp32", "--samples", "2", "--json", "--quiet"]
    assert main(["build", str(tiny_checkpoint), "-o", str(tmp_path / "b"), *fast, *said]) == 0
    made = json.loads(capsys.readouterr().out)["precision"]
    assert made["quantization"]["method"] == method
    assert (made["block_size"], made["overrides"]) == (block_size, overrides)


def test_text_is_read_from_its_beginning_to_its_end():
    asked = []

    def embed(ids):
        asked.append(ids.tolist())
        return ids[:, None].astype(np.float32)

    ids = [1, *range(100, 200)]
    prompts = list(read_text(ids, embed, passages=3, length=41))
    assert asked == [[1, *range(100, 140)], [1, *range(130, 170)], [1, *range(160, 200)]]
    assert [prompt.tail for prompt in prompts] == [41] * 3  # the logits of every word count
    assert [len(p.embeddings) for p in read_text(ids[:5], embed, passages=2, length=41)] == [5, 5]
    assert len(calibration_text().split()) > PASSAGES * 200  # enough for every tokenizer


def a_png() -> bytes:
    import cv2

    return cv2.imencode(".png", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
