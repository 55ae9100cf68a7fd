# SPDX-License-Identifier: Apache-2.0
"""Half downloads, degenerate tensors and adapters: never another model without a word."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobilevlm_ros.checkpoints.checkpoint import load, open_checkpoint
from mobilevlm_ros.checkpoints.gguf.file import GGUFFile
from mobilevlm_ros.checkpoints.gguf.writer import export_gguf
from mobilevlm_ros.checkpoints.weights_check import UNFINISHED, check_tensor
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.source import open_source
from mobilevlm_ros.files.hub_cache import hub_cache
from mobilevlm_ros.files.json_fields import read_json
from mobilevlm_ros.model.other_models import ADAPTER_FILES
from mobilevlm_ros.processing.tokenizer import Tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n"
MATRIX = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def v2(parity: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(parity / "ckpt" / "tiny-ldpnetv2", tmp_path / "v2"))
    shutil.copytree(parity / "ckpt" / "tiny-clip-336", tmp_path / "tiny-clip-336")
    for file in path.iterdir():
        file.chmod(0o644)
    return path


def as_safetensors(path: Path) -> Path:
    """One model.safetensors, whatever layout the checkpoint had."""
    _, source = open_checkpoint(path)
    tensors = {k: source.checkpoint.tensor(k).clone().contiguous() for k in source.checkpoint.keys()}  # noqa: SIM118
    for file in [*path.glob("*.bin"), *path.glob("*.safetensors"), *path.glob("*.index.json")]:
        file.unlink()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path / "model.safetensors"


@pytest.mark.parametrize(("start", "end"), [(0.6, 1.0), (0.3, 0.5), (0.1, 0.9)])
def test_zeros_in_the_place_of_content_are_refused(v2: Path, start: float, end: float) -> None:
    file = as_safetensors(v2)
    load(v2)
    data = bytearray(file.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = bytes(last - first)
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\..* (all zero|rows of zeros).*copy it again"):
        load(v2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (torch.zeros_like, "is all zero"),
        (lambda t: torch.full_like(t, 0.5), "is 0.5 throughout"),
        (lambda t: t * 1e8, "largest weight"),
        (lambda t: t * 1e-12, "largest weight"),
        (lambda t: torch.cat((t[: len(t) // 2], torch.zeros_like(t[len(t) // 2 :]))), "rows of zeros"),
    ],
)
def test_degenerate_tensors_are_refused_by_name(v2: Path, change, said: str) -> None:
    file = as_safetensors(v2)
    tensors = load_file(file)
    tensors[MATRIX] = change(tensors[MATRIX].float()).contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{MATRIX} .*{said}"):
        load(v2)


def test_what_training_makes_passes() -> None:
    table = torch.randn(32000, 8)
    table[31990:] = 0  # tokens that pad the vocabulary
    for name, tensor in (
        ("embed_tokens.weight", table),
        ("norm.weight", torch.ones(64)),
        ("q_proj.bias", torch.zeros(64)),
        ("conv.weight", torch.randn(64, 1, 3, 3)),
    ):
        assert check_tensor(tensor, name, Path()) is tensor


@pytest.mark.parametrize("ending", UNFINISHED)
def test_a_download_that_has_not_ended_is_told(v2: Path, ending: str) -> None:
    file = as_safetensors(v2)
    file.with_name(file.name + ending).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not downloaded whole"):
        open_checkpoint(v2)


def test_a_wrong_checksum_inside_a_bin_is_noticed(v2: Path) -> None:
    file = as_safetensors(v2)
    tensors = load_file(file)
    file.unlink()
    binary = v2 / "pytorch_model.bin"
    torch.save(tensors, binary)
    load(v2)
    data = bytearray(binary.read_bytes())
    with zipfile.ZipFile(binary) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    data[largest.header_offset + largest.file_size // 2 + 200] ^= 0x10
    binary.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checksum of .* is wrong"):
        load(v2)


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_an_adapter_beside_weights_is_told(v2: Path, name: str) -> None:
    (v2 / name).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=rf"LoRA adapter \({name}\).*mobilevlm merge"):
        open_checkpoint(v2)


def test_pointers_of_git_lfs_say_how_to_get_the_content(v2: Path, tmp_path: Path) -> None:
    (v2 / "tokenizer.model").write_bytes(POINTER)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        Tokenizer(v2 / "tokenizer.model")
    (tmp_path / "x.gguf").write_bytes(POINTER)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        GGUFFile(tmp_path / "x.gguf")


@pytest.mark.parametrize("target", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_no_pipe_and_no_device_is_read(v2: Path, target: str, kind: str) -> None:
    file = as_safetensors(v2).with_name(target)
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError):
        open_checkpoint(v2)


def test_json_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=r"more than .* bytes"):
        read_json(tmp_path / "config.json")


def test_the_neighbours_of_a_gguf_do_not_decide(parity: Path, tmp_path: Path) -> None:
    language, *_ = export_gguf(parity / "ckpt" / "tiny-ldpnet", tmp_path / "g")
    for number, content in enumerate((POINTER, b"", b"GGUF junk")):
        (language.parent / f"other-{number}.gguf").write_bytes(content)
    assert open_source(language).config.language.num_hidden_layers > 0


def test_the_older_name_of_the_hub_cache_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HUGGINGFACE_HUB_CACHE", "/data/hub")
    assert hub_cache() == Path("/data/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/data/newer")
    assert hub_cache() == Path("/data/newer")


@pytest.mark.parametrize("count", [10**6, 16_000_000])
def test_a_million_layers_are_refused_at_once(v2: Path, count: int) -> None:
    description = json.loads((v2 / "config.json").read_text())
    (v2 / "config.json").write_text(json.dumps({**description, "num_hidden_layers": count}))
    with pytest.raises(CheckpointError, match=r"tells of \d{7,} layers, but only \d+ tensors"):
        open_checkpoint(v2)


@pytest.mark.parametrize("key", [1, 2.5, None, (1, 2), b"a"])
def test_tensors_without_names_are_refused(v2: Path, key: object) -> None:
    as_safetensors(v2).unlink()
    torch.save({"a": torch.randn(2, 2), key: torch.randn(2, 2)}, v2 / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pytorch_model"):
        open_checkpoint(v2)
