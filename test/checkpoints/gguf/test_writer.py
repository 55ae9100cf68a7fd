# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.checkpoints.checkpoint import open_checkpoint
from mobilevlm_ros.cli import main
from mobilevlm_ros.errors import CheckpointError

gguf = pytest.importorskip("gguf", reason="comes with the extra `build`")

from mobilevlm_ros.checkpoints.gguf.writer import export_gguf  # noqa: E402 (imports gguf)


def contents(path: Path) -> tuple[dict, dict]:
    """Metadata, and tensors dequantised to f32, of a GGUF file."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return fields, tensors


@pytest.fixture
def exported(parity, tmp_path):
    def make(checkpoint: str, type_name: str = "f32"):
        language, vision = export_gguf(parity / "ckpt" / checkpoint, tmp_path / "out", type_name=type_name)
        assert (language.name, vision.name) == (
            f"{checkpoint}-{type_name}.gguf",
            f"mmproj-{checkpoint}-f16.gguf",
        )
        assert sorted((tmp_path / "out").iterdir()) == sorted([language, vision])
        return contents(language), contents(vision)

    return make


def rope(rows: np.ndarray, position: float, neighbours: bool) -> np.ndarray:
    """Rotates a head's rows [D, K], pairing neighbours (llama.cpp) or halves (the checkpoint)."""
    half = len(rows) // 2
    angles = position * 10000.0 ** (-np.arange(half) / half)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = (rows[::2], rows[1::2]) if neighbours else (rows[:half], rows[half:])
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine])


def test_the_language_model_is_all_there(parity, exported):
    (fields, tensors), _ = exported("tiny-ldpnet")
    config, source = open_checkpoint(parity / "ckpt" / "tiny-ldpnet")
    language = config.language
    assert fields["general.architecture"] == "llama"
    assert fields["llama.context_length"] == 2048
    assert fields["llama.block_count"] == 3
    assert fields["llama.attention.head_count"] == fields["llama.attention.head_count_kv"] == 4
    assert fields["llama.rope.dimension_count"] == language.head_dim == 16
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert "llama.rope.scaling.type" not in fields
    assert len(tensors) == 3 + 9 * language.num_hidden_layers

    def original(name: str) -> np.ndarray:
        return source.tensor(name).float().numpy()

    for new, old in {
        "token_embd": "model.embed_tokens",
        "output": "lm_head",
        "output_norm": "model.norm",
        "blk.2.ffn_down": "model.layers.2.mlp.down_proj",
        "blk.1.attn_v": "model.layers.1.self_attn.v_proj",
        "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
    }.items():
        np.testing.assert_array_equal(tensors[f"{new}.weight"], original(f"{old}.weight"))
    # A head rotated llama.cpp's way holds what the checkpoint's way gives.
    theirs = tensors["blk.1.attn_q.weight"][16:32]
    ours = original("model.layers.1.self_attn.q_proj.weight")[16:32]
    np.testing.assert_allclose(rope(theirs, 7.0, True), rope(ours, 7.0, False), atol=1e-6)


def test_the_tokenizer_is_all_there(exported):
    (fields, _), _ = exported("tiny-ldpnet")
    assert fields["tokenizer.ggml.model"] == "llama"
    assert len(fields["tokenizer.ggml.tokens"]) == len(fields["tokenizer.ggml.scores"]) == 480
    assert fields["tokenizer.ggml.tokens"][:3] == ["<unk>", "<s>", "</s>"]
    types = fields["tokenizer.ggml.token_type"]
    assert types[:3] == [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    assert fields["tokenizer.ggml.tokens"][types.index(gguf.TokenType.BYTE)] == "<0x00>"
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert "ASSISTANT:" in fields["tokenizer.chat_template"]


@pytest.mark.parametrize(
    ("checkpoint", "kind", "projector"),
    [
        (
            "tiny-ldpnet",
            "ldp",
            {"mm.model.mlp.1.weight": (64, 32), "mm.model.mb_block.2.block.1.fc1.weight": (16, 64)},
        ),
        (
            "tiny-ldpnetv2",
            "ldpv2",
            {"mm.model.mlp.0.weight": (64, 32), "mm.model.peg.0.weight": (64, 1, 3, 3)},
        ),
    ],
)
def test_the_tower_and_the_projector_are_all_there(parity, exported, checkpoint, kind, projector):
    _, (fields, tensors) = exported(checkpoint)
    config, source = open_checkpoint(parity / "ckpt" / checkpoint)
    assert fields["general.architecture"] == "clip"
    assert fields["clip.projector_type"] == kind
    assert fields["clip.use_gelu"] is False
    assert fields["clip.vision.block_count"] == 4
    assert fields["clip.vision.image_size"] == 336
    assert fields["clip.vision.projection_dim"] == 64
    assert fields["clip.vision.image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    in_projector = [name for name in tensors if name.startswith("mm.")]
    assert len(in_projector) == {"ldp": 24, "ldpv2": 6}[kind]
    assert len(tensors) - len(in_projector) == 5 + 16 * config.vision.num_hidden_layers
    for name, shape in projector.items():
        assert tensors[name].shape == shape
    tower = "model.vision_tower.vision_tower.vision_model"
    fc1 = source.tensor(f"{tower}.encoder.layers.2.mlp.fc1.weight").float().numpy()
    np.testing.assert_array_equal(tensors["v.blk.2.ffn_down.weight"], fc1.astype(np.float16))


@pytest.mark.parametrize(
    ("type_name", "least", "most"), [("f16", 0, 1e-3), ("q8_0", 1e-4, 1e-2), ("q4_0", 1e-2, 0.15)]
)
def test_matrices_are_stored_as_asked(parity, exported, type_name, least, most):
    (_, tensors), _ = exported("tiny-ldpnetv2", type_name)
    _, source = open_checkpoint(parity / "ckpt" / "tiny-ldpnetv2")
    original = source.tensor("model.layers.0.mlp.up_proj.weight").float().numpy()
    error = np.abs(tensors["blk.0.ffn_up.weight"] - original).max() / np.abs(original).max()
    assert least <= error < most
    np.testing.assert_array_equal(
        tensors["output_norm.weight"], source.tensor("model.norm.weight").float().numpy()
    )


def test_position_interpolation_is_told(parity, tmp_path):
    long = Path(shutil.copytree(parity / "ckpt", tmp_path / "ckpt")) / "tiny-ldpnetv2"
    data = json.loads((long / "config.json").read_text())
    data["rope_scaling"] = {"type": "linear", "factor": 4.0}
    (long / "config.json").write_text(json.dumps(data))
    fields, _ = contents(export_gguf(long, tmp_path / "out")[0])
    assert fields["llama.rope.scaling.type"] == "linear"
    assert fields["llama.rope.scaling.factor"] == 4.0
    assert fields["llama.context_length"] == 8192


def test_what_llama_cpp_cannot_run_is_refused(tiny_checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"24 x 24 patches; this checkpoint has ldpnetv2 on 12 x 12"):
        export_gguf(tiny_checkpoint, tmp_path)


def test_an_interrupted_export_leaves_nothing(parity, tmp_path):
    def interrupt(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_gguf(parity / "ckpt" / "tiny-ldpnet", tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_the_command_lists_its_files(parity, tmp_path, capsys):
    assert main(["export-gguf", str(parity / "ckpt" / "tiny-ldpnet"), "-o", str(tmp_path), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)
    assert files == {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert len(files) == 2


def test_a_hub_id_is_looked_up_in_the_cache(parity, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "cache" / "models--somebody--tiny"
    shutil.copytree(parity / "ckpt" / "tiny-ldpnetv2", repository / "snapshots" / "0123abcd")
    shutil.copytree(parity / "ckpt" / "tiny-clip-336", repository / "snapshots" / "tiny-clip-336")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    assert main(["export-gguf", "somebody/tiny", "-o", str(tmp_path / "out"), "--quiet"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["mmproj-tiny-f16.gguf", "tiny-f16.gguf"]
