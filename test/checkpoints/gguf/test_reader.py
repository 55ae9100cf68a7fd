# SPDX-License-Identifier: Apache-2.0
"""GGUF files become the checkpoint that they were made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilevlm_ros.checkpoints.checkpoint import expected_shapes, open_checkpoint
from mobilevlm_ros.cli import main
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.source import open_source
from mobilevlm_ros.processing.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf", reason="comes with the extra `build`")

from mobilevlm_ros.checkpoints.gguf.tensor_names import SELECT_LAYER  # noqa: E402
from mobilevlm_ros.checkpoints.gguf.writer import export_gguf  # noqa: E402 (imports gguf)

CHECKPOINTS = ["tiny-ldpnet", "tiny-ldpnetv2"]
Edit = Callable[[dict, dict], None]


@pytest.fixture(scope="session")
def exported(parity, tmp_path_factory) -> Callable[..., tuple[Path, Path]]:
    """The two files of a checkpoint; do not change them."""
    made: dict[tuple[str, str], tuple[Path, Path]] = {}

    def make(checkpoint: str, type_name: str = "f32") -> tuple[Path, Path]:
        if (checkpoint, type_name) not in made:
            out = tmp_path_factory.mktemp("gguf")
            language, vision = export_gguf(parity / "ckpt" / checkpoint, out, type_name=type_name)
            made[checkpoint, type_name] = language, vision
        return made[checkpoint, type_name]

    return make


def rewrite(source: Path, target: Path, edit: Edit) -> Path:
    """A copy with `edit`ed fields and tensors (f32 arrays, or with their own dtype)."""
    reader = gguf.GGUFReader(source)
    fields = {
        name: (field.contents(), field.types)
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    edit(fields, tensors)
    writer = gguf.GGUFWriter(target, fields.pop("general.architecture")[0])
    for name, (value, types) in fields.items():
        writer.add_key_value(name, value, types[0], types[1] if len(types) > 1 else None)
    for name, array in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def as_llama_cpp_converts(fields: dict, tensors: dict) -> None:
    """What convert_image_encoder_to_gguf.py leaves out and flattens."""
    last = fields["clip.vision.block_count"][0] - 1
    for name in [name for name in tensors if name.startswith(f"v.blk.{last}.")]:
        del tensors[name]
    fields["clip.vision.block_count"] = (last, fields["clip.vision.block_count"][1])
    del fields[SELECT_LAYER]
    for name in tensors:
        if name.startswith("mm."):
            tensors[name] = tensors[name].squeeze()


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_every_tensor_comes_back(parity, exported, checkpoint):
    path = parity / "ckpt" / checkpoint
    config, original = open_checkpoint(path)
    source = open_source(exported(checkpoint)[0])
    assert source.name == checkpoint
    assert source.config.language == config.language
    assert source.config.vision == config.vision
    assert source.config.projector_type == config.projector_type
    assert (source.config.select_layer, source.config.num_image_tokens) == (-2, 144)
    for key in expected_shapes(config):
        if ".post_layernorm." in key:
            continue
        mine, theirs = source.tensors.tensor(key).numpy(), original.tensor(key).float().numpy()
        assert mine.shape == theirs.shape
        tolerance = 0 if key.startswith(("model.layers", "lm_head", "model.embed", "model.norm")) else 1e-3
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * 0.1, err_msg=key)
        source.tensors.release()


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_tokenizer_comes_back(parity, exported, checkpoint, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(open_source(exported(checkpoint)[0]).tokenizer)
    ours = Tokenizer(tmp_path / "tokenizer.model")
    theirs = Tokenizer(parity / "ckpt" / checkpoint / "tokenizer.model")
    assert ours.vocab_size == theirs.vocab_size
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (theirs.bos_id, theirs.eos_id, theirs.unk_id)
    for text in ("Who wrote this book?", "  two  spaces\n", "déjà vu 猫 \U0001f600", "</s><s> x", "", " "):
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids)
    assert [ours.piece(i) for i in range(ours.vocab_size)] == [
        theirs.piece(i) for i in range(ours.vocab_size)
    ]


def encode_and_read(bundle: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image embeddings, and logits after a prompt."""
    from mobilevlm_ros.engine.runtime import load_runtime

    runtime = load_runtime(bundle, threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 336, 336, 3), dtype=np.uint8)
    image = runtime.vision.encode(pixels)[0]
    ids = np.array(runtime.tokenizer.encode("Who wrote this?"))
    prompt = np.concatenate([image, runtime.language.embed(ids)])
    return image, runtime.language.forward(prompt[None], runtime.language.new_cache())[0, -1]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("edit", [None, as_llama_cpp_converts], ids=["ours", "llama.cpp's"])
def test_the_bundle_answers_as_that_of_the_checkpoint(parity_bundle, exported, tmp_path, checkpoint, edit):
    from mobilevlm_ros.export.quantization.precision import DecoderPrecision

    language, vision = exported(checkpoint)
    if edit is not None:
        vision = rewrite(vision, tmp_path / "vision.gguf", edit)
    bundle = build_bundle(
        language,
        tmp_path / "bundle",
        BuildOptions(mmproj=vision, precision=DecoderPrecision(bits=32), vision_store="fp32"),
    )
    expected, given = encode_and_read(parity_bundle(checkpoint)), encode_and_read(bundle.path)
    for mine, theirs in zip(given, expected):
        np.testing.assert_allclose(mine, theirs, atol=5e-3 * np.abs(theirs).max())
    assert given[1].argmax() == expected[1].argmax()


@pytest.mark.parametrize(("type_name", "error"), [("f16", 1e-3), ("q8_0", 2e-2), ("q4_0", 0.2)])
def test_quantised_files_are_read(parity, exported, type_name, error):
    source = open_source(exported("tiny-ldpnetv2", type_name)[0])
    _, original = open_checkpoint(parity / "ckpt" / "tiny-ldpnetv2")
    for key in ("model.layers.1.self_attn.k_proj.weight", "model.layers.2.mlp.up_proj.weight"):
        theirs = original.tensor(key).float().numpy()
        difference = np.abs(source.tensors.tensor(key).numpy() - theirs).max()
        assert difference < error * np.abs(theirs).max()


def test_the_layer_llama_cpp_states_is_taken(exported, tmp_path):
    def state(fields: dict, tensors: dict) -> None:
        del fields[SELECT_LAYER]
        kind = gguf.GGUFValueType
        fields["clip.vision.feature_layer"] = ([2], [kind.ARRAY, kind.INT32])

    language, vision = exported("tiny-ldpnetv2")
    changed = rewrite(vision, tmp_path / "v.gguf", state)
    assert open_source(language, mmproj=changed).config.select_layer == 2


def test_either_order_of_the_towers_matrices_is_understood(exported, tmp_path):
    def swap(fields: dict, tensors: dict) -> None:
        for i in range(fields["clip.vision.block_count"][0]):
            for part in ("weight", "bias"):
                up, down = f"v.blk.{i}.ffn_up.{part}", f"v.blk.{i}.ffn_down.{part}"
                tensors[up], tensors[down] = tensors[down], tensors[up]

    language, vision = exported("tiny-ldpnetv2")
    new = rewrite(vision, tmp_path / "v.gguf", swap)
    key = "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight"
    ours, theirs = (open_source(language, mmproj=file).tensors.tensor(key) for file in (new, vision))
    np.testing.assert_array_equal(ours, theirs)


def test_position_interpolation_survives(parity, tmp_path):
    long = Path(shutil.copytree(parity / "ckpt", tmp_path / "ckpt")) / "tiny-ldpnetv2"
    data = json.loads((long / "config.json").read_text())
    data["rope_scaling"] = {"type": "linear", "factor": 4.0}
    (long / "config.json").write_text(json.dumps(data))
    language, _ = export_gguf(long, tmp_path / "out")
    config = open_source(language).config.language
    assert (config.rope_factor, config.max_position_embeddings, config.context_length) == (4.0, 2048, 8192)


def test_how_pictures_are_squared_survives(parity, tmp_path):
    square = Path(shutil.copytree(parity / "ckpt", tmp_path / "ckpt")) / "tiny-ldpnetv2"
    data = json.loads((square / "config.json").read_text())
    (square / "config.json").write_text(json.dumps({**data, "image_aspect_ratio": "square"}))
    language, _ = export_gguf(square, tmp_path / "out")
    assert open_source(language).config.aspect == "crop"


def test_the_command_takes_files_and_directories(exported, tmp_path, capsys):
    language, vision = exported("tiny-ldpnetv2", "f16")
    files = ["build", str(language), "--mmproj", str(vision), "-o", str(tmp_path / "a"), "--name", "mine"]
    assert main([*files, "--quantize", "rtn"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'a'}: mine, ")
    directory = ["build", str(language.parent), "-o", str(tmp_path / "b")]
    assert main([*directory, "--quantize", "rtn", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny-ldpnetv2"


def set_field(name: str, value: object) -> Edit:
    def edit(fields: dict, tensors: dict) -> None:
        fields[name] = (value, fields[name][1])

    return edit


def drop(*names: str) -> Edit:
    def edit(fields: dict, tensors: dict) -> None:
        for name in names:
            fields.pop(name, None)
            tensors.pop(name, None)

    return edit


def widen(name: str) -> Edit:
    def edit(fields: dict, tensors: dict) -> None:
        tensors[name] = np.concatenate([tensors[name], tensors[name]])

    return edit


@pytest.mark.parametrize(
    ("which", "edit", "message"),
    [
        (0, drop("llama.embedding_length"), r"does not say llama\.embedding_length; convert"),
        (0, drop("blk.1.attn_q.weight"), r"tensors 1 missing: blk\.1\.attn_q\.weight"),
        (0, widen("blk.0.ffn_up.weight"), r"1 misshapen: blk\.0\.ffn_up\.weight is \[\d+, 64\], expected"),
        (0, set_field("llama.block_count", 2**30), r"says block_count \d+, but holds 3 layers"),
        (0, drop("token_embd.weight"), "has no embedding table"),
        (0, set_field("llama.attention.head_count", 0), "head"),
        (0, set_field("llama.attention.head_count", 8), "8 heads share 64 channels; no MobileLLaMA"),
        (0, set_field("tokenizer.ggml.model", "gpt2"), "tokenizer of type 'gpt2'"),
        (0, drop("tokenizer.ggml.scores"), "lacks tokens, their scores or their types"),
        (
            1,
            set_field("clip.projector_type", "peg"),
            "projector type 'peg'; a MobileVLM's is one of ldp, ldpv2",
        ),
        (1, set_field("clip.projector_type", "ldp"), r"missing: mm\.model\.mlp\.1\.weight"),
        (1, set_field("clip.vision.image_mean", [0.5, 0.5, 0.5]), "normalises pixels by image_mean"),
        (1, drop("v.blk.1.ffn_up.bias"), r"1 missing: v\.blk\.1\.ffn_up\.bias"),
        (1, set_field("clip.vision.embedding_length", 48), "misshapen"),
    ],
)
def test_wrong_files_are_refused(exported, tmp_path, which, edit, message):
    files = list(exported("tiny-ldpnetv2"))
    files[which] = rewrite(files[which], tmp_path / "wrong.gguf", edit)
    with pytest.raises(CheckpointError, match=message):
        open_source(files[0], mmproj=files[1])


def test_the_files_are_told_apart(exported, tmp_path):
    language, vision = exported("tiny-ldpnetv2")
    with pytest.raises(CheckpointError, match="architecture 'clip', not 'llama'; give the MobileLLaMA's"):
        open_source(vision, mmproj=language)
    with pytest.raises(CheckpointError, match=r"not 'clip'; --mmproj takes the encoder's"):
        open_source(language, mmproj=language)
    shutil.copy(language, tmp_path / "alone.gguf")
    with pytest.raises(CheckpointError, match=r"no file with a MobileVLM's image encoder .* --mmproj FILE"):
        open_source(tmp_path / "alone.gguf")
    shutil.copy(language, tmp_path / "second.gguf")
    with pytest.raises(CheckpointError, match=r"2 files with a MobileVLM's language model"):
        open_source(tmp_path)
    with pytest.raises(CheckpointError, match="is no GGUF file, so --mmproj has nothing to go with"):
        open_source(tmp_path / "checkpoint", mmproj=vision)
    with pytest.raises(CheckpointError, match=r"nowhere\.gguf cannot be read: No such file"):
        open_source(tmp_path / "nowhere.gguf")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=3))
def test_garbled_metadata_are_refused_or_read(exported, tmp_path, changes):
    language, vision = exported("tiny-ldpnetv2")
    content = bytearray(language.read_bytes())
    metadata = content.index(b"general.alignment") if b"general.alignment" in content else 20_000
    for place, value in changes:
        content[24 + place % metadata] = value
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with suppress(CheckpointError):
        open_source(path, mmproj=vision)
