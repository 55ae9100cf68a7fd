# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from safetensors import SafetensorError

from mobilevlm_ros.checkpoints import random_weights as random_checkpoint
from mobilevlm_ros.checkpoints.checkpoint import expected_shapes, load, open_checkpoint
from mobilevlm_ros.checkpoints.random_weights import CONFIGS, write_random_checkpoint
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.model.config import MobileVLMConfig


# Parameters and tensors of the published files.
@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("MobileVLM-1.7B", 1_686_742_016, 634),
        ("MobileVLM_V2-1.7B", 1_674_121_216, 616),
        ("MobileVLM-3B", 3_033_981_696, 706),
        ("MobileVLM_V2-3B", 3_014_273_536, 688),
    ],
)
def test_geometries_are_the_published_ones(name, parameters, tensors):
    shapes = expected_shapes(CONFIGS[name])
    assert len(shapes) == tensors
    assert sum(map(math.prod, shapes.values())) == parameters


def test_shards_read_back_and_the_seed_decides(tmp_path, parity, monkeypatch):
    tokenizer = parity / "ckpt" / "tiny-ldpnet" / "tokenizer.model"
    monkeypatch.setattr(random_checkpoint, "_SHARD_BYTES", 50_000)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_checkpoint(CONFIGS["tiny"], tmp_path / name, tokenizer, seed=seed)
    names = sorted(path.name for path in (tmp_path / "a").glob("*.safetensors"))
    assert len(names) > 2
    assert names[-1] == f"model-{len(names):05d}-of-{len(names):05d}.safetensors"
    config, _ = open_checkpoint(tmp_path / "a")
    assert config == CONFIGS["tiny"]
    a, b, c = (load(tmp_path / name).lm_head.weight for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.std().item() == pytest.approx(0.02, rel=0.05)


def test_an_existing_directory_is_kept_and_an_interrupted_one_is_not(tmp_path, parity):
    tokenizer = parity / "ckpt" / "tiny-ldpnet" / "tokenizer.model"
    with pytest.raises(CheckpointError, match="already exists"):
        write_random_checkpoint(CONFIGS["tiny"], tmp_path, tokenizer)

    def interrupt(done: int, total: int, what: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_random_checkpoint(CONFIGS["tiny"], tmp_path / "new", tokenizer, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_tower_of_another_geometry_is_described(tmp_path, parity):
    source = parity / "ckpt" / "tiny-ldpnetv2"  # names its CLIP directory by a relative path
    config = MobileVLMConfig.from_directory(source)
    assert not config.own_vision
    write_random_checkpoint(config, tmp_path / "twin", source / "tokenizer.model")
    assert open_checkpoint(tmp_path / "twin")[0].vision == config.vision


def test_files_can_be_read_by_others_and_a_full_disk_is_said(tmp_path, parity, monkeypatch):
    tokenizer = parity / "ckpt" / "tiny-ldpnet" / "tokenizer.model"
    write_random_checkpoint(CONFIGS["tiny"], tmp_path / "a", tokenizer)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o644}

    def full(*arguments: object, **options: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(random_checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"b cannot be written: .*No space left"):
        write_random_checkpoint(CONFIGS["tiny"], tmp_path / "b", tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
