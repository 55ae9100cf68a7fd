# SPDX-License-Identifier: Apache-2.0
"""Weights are read in every layout, lazily, and never executed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mobilevlm_ros.checkpoints.tensor_reader import LAYOUTS, CheckpointReader
from mobilevlm_ros.errors import CheckpointError

EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_tensors(v2, layout):
    tensors = v2.tensors()
    v2.write(tensors, layout)
    reader = CheckpointReader(v2.path)
    assert set(reader.keys()) == set(tensors)
    for key, tensor in tensors.items():
        assert reader.shape(key) == tuple(tensor.shape)
        assert reader.tensor(key).dtype == torch.bfloat16
        assert torch.equal(reader.tensor(key), tensor)


def test_shards_are_opened_when_they_are_needed(v2):
    v2.write(v2.tensors(), "model.safetensors.index.json")
    shards = sorted(v2.path.glob("model-*.safetensors"))
    reader = CheckpointReader(v2.path)
    shards[1].write_bytes(b"damaged")
    assert reader.shape(EMBEDDING) == (480, 64)
    with pytest.raises(CheckpointError, match="00002-of-00002"):
        reader.tensor("lm_head.weight")


def test_files_older_than_pytorch_1_6_are_read(v2):
    tensors = v2.tensors()
    torch.save(tensors, v2.path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(CheckpointReader(v2.path).tensor(EMBEDDING), tensors[EMBEDDING])


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("modern", [True, False])
def test_code_in_a_bin_file_is_not_run(v2, tmp_path, modern):
    target = tmp_path / "executed"
    bomb = {EMBEDDING: torch.zeros(1), "bomb": Bomb(target)}
    torch.save(bomb, v2.path / "pytorch_model.bin", _use_new_zipfile_serialization=modern)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .* nothing in it was executed") as caught:
        CheckpointReader(v2.path)
    assert not target.exists()
    assert "weights_only" not in str(caught.value)  # PyTorch's text says how to run it


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"{}", b"\x00" * 4096])
@pytest.mark.parametrize("layout", ["pytorch_model.bin", "model.safetensors", "model.safetensors.index.json"])
def test_damaged_files_are_refused_by_name(tmp_path, layout, content):
    (tmp_path / layout).write_bytes(content)
    with pytest.raises(CheckpointError, match=layout.replace(".", r"\.")):
        CheckpointReader(tmp_path)


@pytest.mark.parametrize("layout", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_half_downloaded_files_are_refused(v2, layout, share):
    v2.write(v2.tensors(), layout)
    content = (v2.path / layout).read_bytes()
    (v2.path / layout).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=layout.replace(".", r"\.")):
        CheckpointReader(v2.path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", ["pytorch_model.bin", "model.safetensors"])
def test_flipped_bytes_are_refused_or_change_values_only(tmp_path, layout):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}
    (save_file if "safetensors" in layout else torch.save)(tensors, tmp_path / layout)
    content = (tmp_path / layout).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        for at in random.integers(0, len(content), 3):
            damaged[at] ^= random.integers(1, 256)
        (tmp_path / layout).write_bytes(damaged)
        try:
            reader = CheckpointReader(tmp_path)
            assert all(reader.tensor(key).shape == reader.shape(key) for key in reader.keys())  # noqa: SIM118
        except CheckpointError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(2), {"state_dict": {"a": torch.zeros(2)}}])
def test_a_bin_file_must_be_a_dictionary_of_tensors(tmp_path, content):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="dictionary of tensors by their names"):
        CheckpointReader(tmp_path)


@pytest.mark.parametrize(
    "weight_map",
    [
        None,
        [],
        {"a": 1},
        {"a": "absent.safetensors"},
        {"a": "../outside.safetensors"},
        {"a": "/etc/passwd"},
        {"a": ""},
    ],
)
def test_an_index_must_name_files_of_its_directory(tmp_path, v2, weight_map):
    (tmp_path / "outside.safetensors").write_bytes(b"")
    v2.write({}, "model.safetensors.index.json")
    v2.write_json("model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match=r"index\.json"):
        CheckpointReader(v2.path)


def test_a_shard_must_hold_what_the_index_says(v2):
    v2.write(v2.tensors(), "pytorch_model.bin.index.json")
    shard = "pytorch_model-00001-of-00002.bin"
    v2.write_json("pytorch_model.bin.index.json", {"weight_map": {"elsewhere": shard}})
    with pytest.raises(CheckpointError, match="lacks elsewhere"):
        CheckpointReader(v2.path).shape("elsewhere")


def test_unknown_tensors_and_places_are_named(tmp_path, v2):
    with pytest.raises(CheckpointError, match="no tensor nonsense"):
        CheckpointReader(v2.path).tensor("nonsense")
    with pytest.raises(CheckpointError, match="holds no weights"):
        CheckpointReader(tmp_path)
    with pytest.raises(CheckpointError, match="not a directory"):
        CheckpointReader(tmp_path / "absent")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_released_files_open_again(v2, layout):
    tensors = v2.tensors()
    v2.write(tensors, layout)
    reader = CheckpointReader(v2.path)
    kept = reader.tensor(EMBEDDING)
    reader.release()
    assert torch.equal(kept, tensors[EMBEDDING])
    assert torch.equal(reader.tensor("lm_head.weight"), tensors["lm_head.weight"])


def test_parameters_are_tensors_too(v2):
    torch.save({k: torch.nn.Parameter(t) for k, t in v2.tensors().items()}, v2.path / "pytorch_model.bin")
    assert CheckpointReader(v2.path).tensor(EMBEDDING).float().numpy().shape


@pytest.mark.parametrize("layout", ["pytorch_model.bin", "model.safetensors"])
def test_a_file_that_git_lfs_left_out_is_told(tmp_path, layout):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    (tmp_path / layout).write_text(pointer)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        CheckpointReader(tmp_path)
