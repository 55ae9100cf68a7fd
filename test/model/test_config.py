# SPDX-License-Identifier: Apache-2.0
"""config.json files: the released ones with their traps, ours, and damaged ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.engine.manifest import Manifest
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.vision_config import VisionConfig

# What the released 3B files say, lit-gpt leftovers included.
RELEASED_3B = {
    "architectures": ["MobileLlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 2560,
    "image_aspect_ratio": "pad",
    "intermediate_size": 6912,
    "max_position_embeddings": 2048,
    "mm_hidden_size": 1024,
    "mm_projector_type": "ldpnetv2",
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "mobilevlm",
    "n_embd": 2560,
    "n_head": 16,
    "n_layer": 32,
    "n_query_groups": 16,
    "norm_eps": 1e-06,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "padded_vocab_size": 32000,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "vocab_size": 32000,
}


def parse(**changes: object) -> MobileVLMConfig:
    data = {key: value for key, value in {**RELEASED_3B, **changes}.items() if value is not ...}
    return MobileVLMConfig.from_json(data, "config.json")


def write(path, data):
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(data))
    return path


def test_a_released_3b_file_has_32_heads_of_80():
    config = parse()
    assert (config.language.num_attention_heads, config.language.head_dim) == (32, 80)
    assert config.vision == VisionConfig(1024, 336, 14, 4096, 16, 24)
    assert (config.num_vision_layers, config.num_image_tokens, config.aspect) == (23, 144, "pad")
    assert config.language.context_length == 2048


def test_keys_that_older_files_lack_have_the_meaning_of_the_official_code():
    config = parse(mm_projector_type=..., image_aspect_ratio=..., num_key_value_heads=..., rope_theta=...)
    assert (config.projector_type, config.aspect) == ("linear", "crop")
    assert config.language.num_key_value_heads == 32
    assert config.language.rope_theta == 10000.0
    assert parse(num_key_value_heads=None).language.num_key_value_heads == 32  # as transformers writes it
    # The official loader would add a token here that no release was trained with.
    assert parse(mm_use_im_patch_token=...).language.vocab_size == 32000


@pytest.mark.parametrize(
    ("kind", "stored"), [("ldpnetv2", True), ("ldpnet", False), ("linear", False), ("mlp2x_gelu", False)]
)
def test_only_v2_uses_the_tower_in_the_checkpoint(kind, stored):
    assert parse(mm_projector_type=kind).uses_stored_tower is stored


def test_a_tower_of_its_own_is_used_whatever_the_projector():
    own = {"hidden_size": 192, "image_size": 144, "patch_size": 12, "intermediate_size": 768}
    own |= {"num_attention_heads": 6, "num_hidden_layers": 5}
    config = parse(mm_projector_type="ldpnet", mm_hidden_size=192, vision_config=own)
    assert config.uses_stored_tower
    assert config.vision == VisionConfig(192, 144, 12, 768, 6, 5)
    assert (config.num_vision_layers, config.num_image_tokens) == (4, 36)


def test_eight_thousand_positions_by_linear_interpolation():
    config = parse(rope_scaling={"type": "linear", "factor": 4.0})
    assert (config.language.rope_factor, config.language.context_length) == (4.0, 8192)
    assert parse(rope_scaling={"rope_type": "linear", "factor": 2}).language.context_length == 4096


def test_rotary_parameters_as_newer_transformers_write_them():
    parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0}
    language = parse(rope_theta=None, rope_parameters=parameters).language
    assert (language.context_length, language.rope_theta) == (8192, 500000.0)
    plain = parse(rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 20000.0}).language
    assert (plain.context_length, plain.rope_theta) == (2048, 20000.0)
    assert parse(rope_scaling={"rope_type": "default"}).language.rope_factor == 1.0


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_what_is_written_reads_back_equal(own, factor):
    language = LanguageConfig(700, 192, 512, 4, 6, 3, rope_factor=factor, tie_word_embeddings=True)
    vision = VisionConfig(192, 144, 12, 768, 6, 5, hidden_act="gelu")
    config = MobileVLMConfig(vision, language, "ldpnet", -1, vision_tower="../clip", own_vision=own)
    data = json.loads(json.dumps(config.to_json_dict()))
    assert MobileVLMConfig.from_json(data, "x", vision=None if own else vision) == config


@pytest.mark.parametrize("nested", [True, False])
def test_the_tower_comes_from_the_clip_directory_beside_the_checkpoint(tmp_path, nested):
    clip = {"hidden_size": 32, "image_size": 336, "patch_size": 14, "num_attention_heads": 4}
    clip |= {"num_hidden_layers": 4, "intermediate_size": 64}
    write(tmp_path / "clip", {"model_type": "clip", "vision_config": clip} if nested else clip)
    data = {**RELEASED_3B, "mm_hidden_size": 32, "mm_vision_tower": "../clip"}
    config = MobileVLMConfig.from_directory(write(tmp_path / "vlm", data))
    assert config.vision == VisionConfig(32, 336, 14, 64, 4, 4)


def test_the_tower_comes_from_the_hugging_face_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--openai--clip-vit-large-patch14-336"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    # Keys left out of a CLIP file mean CLIP's defaults, which are those of its base model.
    write(repository / "snapshots" / "abc123", {"vision_config": {"image_size": 336, "patch_size": 14}})
    config = MobileVLMConfig.from_directory(write(tmp_path / "vlm", {**RELEASED_3B, "mm_hidden_size": 768}))
    assert config.vision == VisionConfig(768, 336, 14, 3072, 12, 12)


def test_a_directory_without_a_clip_directory_has_the_tower_of_every_release(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert MobileVLMConfig.from_directory(write(tmp_path / "vlm", RELEASED_3B)).vision == VisionConfig()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mm_projector_type": ..., "mm_vision_tower": ..., "model_type": "llama"}, "MobileLLaMA"),
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"hidden_size": "2560"}, "hidden_size is '2560'"),
        ({"hidden_size": 2560.5}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": -3}, "num_hidden_layers is -3"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_attention_heads": 7}, "num_attention_heads"),
        ({"num_key_value_heads": 5}, "num_key_value_heads"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "0.5"),
        ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, "nan"),
        ({"rope_scaling": {"type": "linear", "factor": 10**400}}, "factor"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"mm_projector_type": "qformer"}, "qformer"),
        ({"mm_projector_type": "mlp0x_gelu"}, "mlp0x_gelu"),
        ({"mm_vision_select_layer": -26}, "-26"),
        ({"mm_vision_select_layer": "-2"}, "'-2'"),
        ({"mm_vision_select_feature": "cls"}, "cls"),
        ({"mm_vision_select_feature": "cls_patch"}, "patch"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
        ({"mm_hidden_size": 32}, "mm_hidden_size is 32"),
        ({"vision_config": {"image_size": 100, "patch_size": 14}, "mm_hidden_size": ...}, "image_size 100"),
        ({"vision_config": {"hidden_act": "relu"}, "mm_hidden_size": ...}, "relu"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_name(changes, complaint):
    with pytest.raises(CheckpointError, match=complaint) as error:
        parse(**changes)
    assert "config.json" in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1, 2]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        MobileVLMConfig.from_directory(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*RELEASED_3B, "vision_config", "tie_word_embeddings"]), json_values))
def test_any_json_is_a_configuration_or_a_checkpoint_error(changes):
    try:
        config = parse(**changes)
    except CheckpointError:
        return
    assert config.num_image_tokens > 0
    assert config.language.context_length > 0


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ({}, (2,)),
        ({"eos_token_id": None}, (2,)),
        ({"eos_token_id": 5}, (5,)),
        ({"eos_token_id": [2, 7]}, (2, 7)),
    ],
)
def test_every_end_token_ends_an_answer(said, ends, tmp_path):
    config = MobileVLMConfig.from_json({**RELEASED_3B, **said}, "config.json")
    assert Manifest.describe(config, "x").stop_ids == ends
    assert MobileVLMConfig.from_json(config.to_json_dict(), "config.json").eos_token_ids == ends
    (tmp_path / "config.json").write_text(json.dumps(RELEASED_3B))
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    assert MobileVLMConfig.from_directory(tmp_path).eos_token_ids == ends


@pytest.mark.parametrize("value", [[], "2", [2, "7"], True, -1, 1 << 40, [[2]], {"a": 1}])
def test_end_tokens_that_are_none_are_refused(value):
    with pytest.raises(CheckpointError, match=r"config\.json: eos_token_id is"):
        MobileVLMConfig.from_json({**RELEASED_3B, "eos_token_id": value}, "config.json")
