# SPDX-License-Identifier: Apache-2.0
"""Checkpoints are checked, loaded with the official choice of tower, and written whole."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoints import checkpoint
from mobilevlm_ros.checkpoints.checkpoint import load, open_checkpoint, save
from mobilevlm_ros.checkpoints.tensor_reader import LAYOUTS
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.model.vision_config import VisionConfig

TOWER = "model.vision_tower.vision_tower.vision_model."
POST = [TOWER + "post_layernorm.weight", TOWER + "post_layernorm.bias"]


def same(a: MobileVLM, b: MobileVLM) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["v1", "v2"])
def test_every_layout_is_the_same_model(request, model, name, layout):
    editable = request.getfixturevalue(name)
    editable.write(editable.tensors(), layout)
    assert same(load(editable.path), model(editable.path.name))


@torch.inference_mode()
def test_v1_takes_the_clip_directorys_tower_and_without_its_weights_the_stored_one(v1, parity, caplog):
    expected = np.load(parity / "v1.npz")
    pixels = torch.from_numpy(expected["landscape/pixel_values"])

    def difference(key: str) -> float:
        return float(np.abs(load(v1.path).encode_images(pixels).numpy() - expected[key]).max())

    assert difference("landscape/projector") < 2e-4
    (v1.clip / "pytorch_model.bin").unlink()  # its config.json stays: the tower's geometry
    with caplog.at_level(logging.WARNING):
        assert difference("landscape/projector_ckpt_tower") < 2e-4
    assert "tiny-clip-336" in caplog.text


def test_v2_takes_the_stored_tower(v2):
    key = TOWER + "embeddings.class_embedding"
    tensors = v2.tensors()
    tensors[key] += 1
    v2.write(tensors)
    assert torch.equal(load(v2.path).state_dict()[key], tensors[key].float())


def test_v1_needs_no_stored_tower_beside_a_clip_directory(v1, model):
    v1.write({key: tensor for key, tensor in v1.tensors().items() if not key.startswith(TOWER)})
    assert same(load(v1.path), model("tiny-ldpnet"))


def test_leftovers_are_ignored_and_an_unused_norm_may_be_missing(v2, model):
    tensors = v2.tensors()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    tensors[TOWER + "embeddings.position_ids"] = torch.arange(577)
    for key in POST:
        del tensors[key]
    v2.write(tensors)
    loaded, original = load(v2.path).state_dict(), model("tiny-ldpnetv2").state_dict()
    assert all(torch.equal(loaded[key], original[key]) for key in original if key not in POST)
    assert loaded[POST[0]].unique().tolist() == [1.0]
    assert loaded[POST[1]].unique().tolist() == [0.0]


def test_heads_come_from_num_attention_heads_alone(v2, model):
    v2.configure(n_head=2, n_query_groups=2, n_layer=9, n_embd=128)
    assert load(v2.path).config == model("tiny-ldpnetv2").config


def test_missing_unexpected_and_misshapen_tensors_are_listed(v2):
    tensors = v2.tensors()
    del tensors["model.norm.weight"]
    tensors["model.layers.3.self_attn.q_proj.weight"] = torch.zeros(64, 64)
    tensors["lm_head.weight"] = torch.zeros(481, 64)
    v2.write(tensors)
    with pytest.raises(CheckpointError) as error:
        load(v2.path)
    message = str(error.value)
    assert "1 missing: model.norm.weight" in message
    assert "1 unexpected: model.layers.3.self_attn.q_proj.weight" in message
    assert "1 misshapen: lm_head.weight is [481, 64], expected [480, 64]" in message


def test_a_long_list_is_cut(v2):
    v2.configure(num_hidden_layers=20)
    with pytest.raises(CheckpointError, match=r"153 missing: .* and 133 more"):
        load(v2.path)


def test_a_bare_language_model_is_refused(v2):
    v2.write(
        {key: tensor for key, tensor in v2.tensors().items() if "vision" not in key and "mm_" not in key}
    )
    with pytest.raises(CheckpointError, match=r"bare language model.*mtgv/MobileVLM_V2-1\.7B"):
        load(v2.path)
    v2.configure(mm_projector_type=..., mm_vision_tower=..., model_type="llama")
    with pytest.raises(CheckpointError, match="MobileLLaMA"):
        load(v2.path)


def test_quantised_weights_are_refused(v2):
    tensors = v2.tensors()
    tensors["model.norm.weight"] = torch.ones(64, dtype=torch.int8)
    v2.write(tensors)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is torch\.int8"):
        load(v2.path)


def test_opening_reads_shapes_only(v2):
    config, source = open_checkpoint(v2.path)
    assert config.projector_type == "ldpnetv2"
    assert source.shape("lm_head.weight") == (480, 64)
    assert source.tensor("lm_head.weight").dtype == torch.bfloat16


def test_dtypes(v2):
    assert {p.dtype for p in load(v2.path).parameters()} == {torch.float32}
    assert {p.dtype for p in load(v2.path, None).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load(v2.path, torch.float16).parameters()} == {torch.float16}
    assert not load(v2.path).training


def nano(**language: object) -> MobileVLM:
    config = MobileVLMConfig(
        VisionConfig(24, 48, 12, 48, 4, 3),
        LanguageConfig(480, 32, 64, 2, 4, 2, **language),  # type: ignore[arg-type]
        "ldpnet",
    )
    torch.manual_seed(0)
    model = MobileVLM(config)
    model.initialize()
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_saved_loads_again_without_a_clip_directory(tmp_path, v1, tied):
    model, path = nano(tie_word_embeddings=tied), tmp_path / "out" / "nano"
    for _ in range(2):  # the second replaces the first
        save(model, model.config, v1.path / "tokenizer.model", path)
    loaded = load(path)
    assert same(loaded, model)
    assert loaded.config == model.config
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.model"]
    assert [p.name for p in path.parent.iterdir()] == ["nano"]


def test_a_v1_model_keeps_the_tower_it_was_saved_with(tmp_path, v1, model):
    original = model("tiny-ldpnet")
    save(original, original.config, v1.path / "tokenizer.model", tmp_path / "copy")
    assert same(load(tmp_path / "copy"), original)


def test_a_model_can_be_saved_over_the_files_it_was_read_from(tmp_path, v1):
    first, path = nano(), tmp_path / "nano"
    save(first, first.config, v1.path / "tokenizer.model", path)
    again = load(path, None)
    save(again, again.config, v1.path / "tokenizer.model", path)
    assert same(load(path), first)


def test_a_failed_save_leaves_what_was_there(tmp_path, v1, monkeypatch):
    model, path = nano(), tmp_path / "out" / "nano"
    save(model, model.config, v1.path / "tokenizer.model", path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(nano(rope_factor=2.0), model.config, v1.path / "tokenizer.model", path)
    assert same(load(path), model)
    assert [p.name for p in path.parent.iterdir()] == ["nano"]
