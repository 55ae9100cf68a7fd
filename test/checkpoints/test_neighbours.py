# SPDX-License-Identifier: Apache-2.0
"""Files that lie beside a checkpoint or GGUF files, and where a tower is looked for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gguf
import pytest
import torch
from fixtures.downloads import COMMIT, POINTER, WEIGHTS, configure, v2
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from mobilevlm_ros.checkpoints.checkpoint import load, open_checkpoint
from mobilevlm_ros.checkpoints.gguf.writer import export_gguf
from mobilevlm_ros.checkpoints.hub import locate
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.source import open_source
from mobilevlm_ros.files import hub_cache

__all__ = ["v2"]


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
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "where" / below / "models--robots--tiny"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(v2, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.chdir(tmp_path)
    assert hub_cache.cached_snapshot("robots/tiny") == snapshot
    assert hub_cache.cached_snapshot("robots/tiny", COMMIT) == snapshot
    assert hub_cache.cached_snapshot("robots/none") is None
    if installed:
        assert locate("robots/tiny") == locate("robots/tiny", COMMIT) == snapshot
        with pytest.raises(CheckpointError):
            locate("robots/none")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udcff", "..", "/", "a/../b", "/dev/zero", "~"])
@pytest.mark.parametrize("installed", [True, False])
def test_no_name_of_a_tower_is_an_untyped_error(
    v2: Path, monkeypatch: pytest.MonkeyPatch, name: str, installed: bool
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
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
