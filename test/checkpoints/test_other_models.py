# SPDX-License-Identifier: Apache-2.0
"""What is no MobileVLM checkpoint, or not the one that the hub has, is named with what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gguf
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from mobilevlm_ros.checkpoints.checkpoint import load, open_checkpoint
from mobilevlm_ros.checkpoints.gguf.writer import export_gguf
from mobilevlm_ros.checkpoints.hub import locate
from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.errors import BundleError, CheckpointError
from mobilevlm_ros.export.source import open_source
from mobilevlm_ros.files import hub_cache
from mobilevlm_ros.files.json_fields import read_json

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "pytorch_model.bin"


@pytest.fixture
def v2(parity: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(parity / "ckpt" / "tiny-ldpnetv2", tmp_path / "v2"))
    shutil.copytree(parity / "ckpt" / "tiny-clip-336", tmp_path / "tiny-clip-336")
    for file in path.iterdir():
        file.chmod(0o644)
    return path


def configure(path: Path, **changes: object) -> None:
    data = json.loads((path / "config.json").read_text())
    data.update(changes)
    (path / "config.json").write_text(json.dumps({k: v for k, v in data.items() if v != "remove"}))


def as_shards(path: Path) -> dict[str, torch.Tensor]:
    """Two shards and their index, in safetensors; returns the tensors."""
    tensors = {k: v.clone().contiguous() for k, v in torch.load(path / WEIGHTS, weights_only=True).items()}
    (path / WEIGHTS).unlink()
    names = sorted(tensors)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    where = {}
    for number, part in enumerate(halves, 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, path / file)
        where.update(dict.fromkeys(part, file))
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return tensors


def from_cache(path: Path, digest: Callable[[bytes], str]) -> None:
    """Lays the weights out as huggingface_hub's cache does."""
    content = (path / WEIGHTS).read_bytes()
    blob = path.parent / "blobs" / digest(content)
    blob.parent.mkdir()
    (path / WEIGHTS).rename(blob)
    (path / WEIGHTS).symlink_to(f"../blobs/{blob.name}")


def from_local_dir(path: Path, digest: Callable[[bytes], str], folder: str) -> None:
    metadata = path / folder / "download" / f"{WEIGHTS}.metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"{COMMIT}\n{digest((path / WEIGHTS).read_bytes())}\n1712656091.123\n")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.mark.parametrize("digest", [sha256, git_sha1], ids=["lfs", "git"])
@pytest.mark.parametrize("layout", ["cache", ".cache/huggingface", ".huggingface"])
def test_weights_are_compared_with_the_hash_of_the_hub(v2: Path, layout: str, digest) -> None:
    if layout == "cache":
        from_cache(v2, digest)
    else:
        from_local_dir(v2, digest, layout)
    load(v2)
    content = bytearray((v2 / WEIGHTS).read_bytes())
    content[-1] ^= 1  # of the archive's end, which no checksum inside covers
    (v2 / WEIGHTS).resolve().write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS} .*the hub's hash is .*download it again"):
        load(v2)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model"])
def test_so_is_what_lies_beside_the_weights(v2: Path, name: str) -> None:
    folder = v2 / ".cache/huggingface/download"
    folder.mkdir(parents=True)
    (folder / f"{name}.metadata").write_text(f"{COMMIT}\n{git_sha1((v2 / name).read_bytes())}\n1.0\n")
    open_source(v2)
    (v2 / name).write_bytes((v2 / name).read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=rf"{name} .*the hub's hash"):
        open_source(v2)


@pytest.mark.parametrize("text", ["", "x", f"{COMMIT}\n", f"{COMMIT}\nno hash\n1\n", "\xff"])
def test_metadata_of_another_layout_tell_nothing(v2: Path, text: str) -> None:
    folder = v2 / ".cache/huggingface/download"
    folder.mkdir(parents=True)
    (folder / f"{WEIGHTS}.metadata").write_text(text, encoding="latin-1")
    open_checkpoint(v2)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llava"}, r"a LLaVA in transformers' layout \(llava, as llava-hf .* original layout"),
        ({"model_type": "llava_next", "text_config": {}}, "a LLaVA in transformers' layout"),
        ({"model_type": "qwen2_5_vl", "vision_config": {}}, r"another vision-language model \(qwen2_5_vl\)"),
        ({"model_type": "idefics3", "text_config": {}}, "another vision-language model"),
        ({"model_type": "clip_vision_model"}, "an image encoder alone"),
        ({"model_type": "siglip"}, "an image encoder alone"),
        ({"model_type": "llama"}, r"a language model without vision \(llama"),
        ({"model_type": "x" * 10000}, r"\(x{60}\.\.\."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_config_of_another_model_is_named(v2: Path, config: dict[str, object], said: str) -> None:
    (v2 / "config.json").write_text(json.dumps({"hidden_size": 64, **config}))
    with pytest.raises(CheckpointError, match=said) as error:
        open_checkpoint(v2)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_a_checkpoint_that_is_quantised_already_is_named(v2: Path, method: str) -> None:
    configure(v2, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(CheckpointError, match=rf"quantised already \({method}\).*16 or 32 bits"):
        open_checkpoint(v2)


def test_heads_of_another_size_are_refused(v2: Path) -> None:
    configure(v2, head_dim=64)
    with pytest.raises(CheckpointError, match="head_dim is 64"):
        open_checkpoint(v2)


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda n: "language_model." + n, "llava-hf"),
        (lambda n: n.replace("model.mm_projector", "multi_modal_projector"), "llava-hf"),
        (lambda n: "base_model.model." + n, "PEFT"),
        (lambda n: "_orig_mod." + n, r"torch\.compile"),
        (lambda n: "module." + n, "several GPUs"),
        (lambda n: n.replace("q_proj.weight", "q_proj.qweight"), "quantised already"),
        (lambda n: n.replace("up_proj.weight", "up_proj.weight_packed"), "quantised already"),
    ],
)
def test_tensors_of_another_layout_are_named(v2: Path, rename: Callable[[str], str], said: str) -> None:
    tensors = torch.load(v2 / WEIGHTS, weights_only=True)
    torch.save({rename(name): tensor for name, tensor in tensors.items()}, v2 / WEIGHTS)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(v2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mm_projector.bin", "only a projector"),
        ("zero_to_fp32.py", "DeepSpeed"),
        ("global_step1000", "DeepSpeed"),
        ("__0_0.distcp", "distributed"),
        ("consolidated.00.pth", "Meta's own layout"),
        ("last.ckpt", "save_pretrained"),
        ("flax_model.msgpack", "Flax"),
        ("weights.npz", "NumPy"),
        ("decoder.onnx", "ONNX"),
        ("checkpoint-500", "checkpoints of a training"),
        ("model-00001-of-00002.safetensors", "without their index"),
        ("pytorch_model-00001-of-00002.bin", "without their index"),
        ("model.fp16.safetensors", "under other names"),
    ],
)
def test_a_directory_without_weights_says_what_it_holds(v2: Path, name: str, said: str) -> None:
    (v2 / WEIGHTS).unlink()
    (v2 / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=f"holds no weights; .*{said}"):
        open_checkpoint(v2)


def test_an_index_of_another_save_is_named(v2: Path) -> None:
    as_shards(v2)
    open_checkpoint(v2)
    index = json.loads((v2 / "model.safetensors.index.json").read_text())
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if "mm_projector" not in k}
    (v2 / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index is of another save .*mm_projector.* copy the index"):
        open_checkpoint(v2)


def test_a_projector_that_lies_apart_is_named(v2: Path) -> None:
    tensors = torch.load(v2 / WEIGHTS, weights_only=True)
    torch.save({k: v for k, v in tensors.items() if "mm_projector" not in k}, v2 / WEIGHTS)
    with pytest.raises(CheckpointError, match="bare language model"):
        open_checkpoint(v2)
    (v2 / "mm_projector.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"it lies apart in mm_projector\.bin"):
        open_checkpoint(v2)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_pointers_of_git_lfs_in_json_say_how_to_get_the_content(v2: Path, name: str) -> None:
    (v2 / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name} .*git lfs pull"):
        read_json(v2 / name)
    if name == "model.safetensors.index.json":
        (v2 / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_checkpoint(v2)


@pytest.mark.parametrize("name", ["bundle.json", "vision.onnx.data", "tokenizer.model", "embeddings.npy"])
def test_pointers_in_a_bundle_do_too(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle / name).write_bytes(POINTER)
    with pytest.raises(BundleError, match=rf"{name} .*git lfs pull"):
        Bundle.open(bundle)


# -- neighbours ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair(parity: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The two GGUF files of a checkpoint."""
    language, vision = export_gguf(parity / "ckpt" / "tiny-ldpnetv2", tmp_path / "gguf")
    return language, vision


@pytest.mark.parametrize("content", [b"", b"{", b'{"model_type": "llama"}', POINTER, b"\xff\xfe"])
def test_a_config_beside_gguf_files_does_not_decide(pair: tuple[Path, Path], content: bytes) -> None:
    (pair[0].parent / "config.json").write_bytes(content)
    assert open_source(pair[0].parent).files == pair
    assert open_source(pair[0], mmproj=pair[1]).files == pair


@pytest.mark.parametrize("content", [b"{", b'{"model_type": "siglip", "patch_size": 16}', POINTER])
def test_a_damaged_tower_beside_a_checkpoint_with_its_own_does_not_decide(v2: Path, content: bytes) -> None:
    configure(v2, vision_config="remove")
    before = open_checkpoint(v2)[0]
    clip = v2.parent / "tiny-clip-336"
    kept = (clip / "config.json").read_bytes()
    (clip / "config.json").write_bytes(content)
    # The geometry was told nowhere else: that of the releases is tried, and the stored tensors say no.
    with pytest.raises(CheckpointError, match=r"does not fit its config|mm_hidden_size is"):
        open_checkpoint(v2)
    (clip / "config.json").write_bytes(kept)
    assert open_checkpoint(v2)[0] == before


def rewritten(source: Path, target: Path, change: Callable[[gguf.GGUFWriter], None], drop: set[str]) -> Path:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name in drop:
            continue
        writer.add_key_value(
            name, field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None
        )
    change(writer)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_every_end_token_of_a_gguf_ends_an_answer(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def ends(writer: gguf.GGUFWriter) -> None:
        writer.add_eos_token_id(5)
        writer.add_eot_token_id(7)
        writer.add_uint32("tokenizer.ggml.eom_token_id", 2**32 - 1)  # none

    changed = rewritten(pair[0], tmp_path / "ends.gguf", ends, {"tokenizer.ggml.eos_token_id"})
    assert open_source(pair[0], mmproj=pair[1]).config.eos_token_ids == (2,)
    assert open_source(changed, mmproj=pair[1]).config.eos_token_ids == (5, 7)


@pytest.mark.parametrize(
    ("kind", "said"), [("peg", "ldpv2"), ("mlp", "LLaVA"), ("resampler", "is one of ldp")]
)
def test_another_projector_in_a_gguf_is_named(pair, tmp_path: Path, kind: str, said: str) -> None:
    changed = rewritten(
        pair[1],
        tmp_path / "mmproj.gguf",
        lambda writer: writer.add_clip_projector_type(kind),
        {"clip.projector_type"},
    )
    with pytest.raises(CheckpointError, match=f"projector type '{kind}'.*{said}"):
        open_source(pair[0], mmproj=changed)


# -- the hub's cache ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("installed", [True, False], ids=["with the library", "without"])
@pytest.mark.parametrize("how", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_cache_is_found_wherever_the_environment_puts_it(
    v2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, installed: bool
) -> None:
    below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}.get(how, "")
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(how, str(tmp_path / "where"))
    # What the library makes of the environment when it is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "where" / below))
    if not installed:
        monkeypatch.setattr(hub_cache, "_library", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "where" / below / "models--robots--tiny"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(v2, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.chdir(tmp_path)
    assert locate("robots/tiny") == snapshot
    assert locate("robots/tiny", COMMIT) == snapshot
    with pytest.raises(CheckpointError):
        locate("robots/none")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udcff", "..", "/", "a/../b", "/dev/zero", "~"])
@pytest.mark.parametrize("installed", [True, False])
def test_no_name_of_a_tower_is_an_untyped_error(
    v2: Path, monkeypatch: pytest.MonkeyPatch, name: str, installed: bool
) -> None:
    if not installed:
        monkeypatch.setattr(hub_cache, "_library", lambda: None)
    assert hub_cache.find_clip_directory(v2, name) in (None, v2 / name)
    configure(v2, mm_vision_tower=name)
    with suppress(CheckpointError):
        open_checkpoint(v2)


def test_a_model_of_the_torch_backend_is_no_view_of_its_file(v2: Path) -> None:
    tensors = {k: v.float() for k, v in torch.load(v2 / WEIGHTS, weights_only=True).items()}
    (v2 / WEIGHTS).unlink()
    save_file(tensors, v2 / "model.safetensors")
    model = load(v2, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with (v2 / "model.safetensors").open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\x41" * 4096)
    assert load_file(v2 / "model.safetensors").keys() == tensors.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
