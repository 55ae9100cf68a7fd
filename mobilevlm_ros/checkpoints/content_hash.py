# SPDX-License-Identifier: Apache-2.0
"""Compares a file of weights with the hash that the Hugging Face hub gave it, where that is on the disk.

huggingface_hub names a file of its cache after the file's ETag: the sha256 of what Git LFS or Xet keep, the
SHA-1 that Git computes of small files. Beside a download into a directory of the user's it writes the ETag
into `.cache/huggingface/download/FILE.metadata` (its second line); older releases into
`.huggingface/download/`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from mobilevlm_ros.errors import CheckpointError

_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_METADATA = (".cache/huggingface/download", ".huggingface/download")
_PIECE = 1 << 20  # bytes read at a time
_LARGEST_METADATA = 4096  # bytes


def check_content(path: Path) -> None:
    """Raises CheckpointError when the hub's hash of a file is on the disk and the file has another."""
    expected, where = _recorded(path)
    if not expected:
        return
    try:
        found = _hashes(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if expected not in found:
        raise CheckpointError(
            f"{path} has the sha256 {found[0][:12]}..., and the hub's hash is {expected[:12]}...: it is "
            f"damaged or was changed; download it again, or remove {where} if the change was meant"
        )


def _recorded(path: Path) -> tuple[str, str]:
    """The hash that the hub gave, and what tells it; empty where it is not known."""
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs":
        return _hash(blob.name), f"the link {path} and put a copy there"
    for folder in _METADATA:
        file = path.parent / folder / f"{path.name}.metadata"
        try:
            if file.is_file() and file.stat().st_size <= _LARGEST_METADATA:
                return _hash(file.read_text(encoding="utf-8").splitlines()[1]), str(file)
        except (OSError, ValueError, IndexError):
            continue  # another layout of these files tells nothing
    return "", ""


def _hash(text: str) -> str:
    text = text.strip().strip('"')
    return text if _HASH.fullmatch(text) else ""


def _hashes(path: Path) -> tuple[str, str, str]:
    """sha256; SHA-1 as Git counts it, with a header; and plain, as some mirrors give it."""
    sha256 = hashlib.sha256()
    plain = hashlib.sha1(usedforsecurity=False)
    git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            for digest in (sha256, git, plain):
                digest.update(piece)
    return sha256.hexdigest(), git.hexdigest(), plain.hexdigest()
