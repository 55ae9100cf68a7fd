# SPDX-License-Identifier: Apache-2.0
"""Weights are compared with the hash that a download left beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.downloads import COMMIT, WEIGHTS, v2

from mobilevlm_ros.checkpoints.checkpoint import load, open_checkpoint
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.export.source import open_source

__all__ = ["v2"]


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
