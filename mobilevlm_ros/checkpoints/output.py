# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories as this package writes them: which files are theirs, and who wrote them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mobilevlm_ros.errors import CheckpointError, CheckpointOutputError
from mobilevlm_ros.files.atomic import write_file
from mobilevlm_ros.files.atomic_directory import DirectoryKind
from mobilevlm_ros.files.json_fields import read_json

METADATA = {"format": "pt", "written_by": "mobilevlm_ros"}
"""Of every safetensors file that we write; `format` is what transformers wants."""

_OURS = re.compile(
    r"config\.json|recipe\.json|tokenizer\.model"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
)
"""What `save` and `write_random_checkpoint` write; a README, say, is somebody else's."""


def checkpoint_members(directory: Path) -> frozenset[str] | None:
    """The files that this package writes into a checkpoint; None when it is none."""
    try:
        read_json(directory / "config.json")
    except CheckpointError:
        return None
    return frozenset(path.name for path in directory.iterdir() if _OURS.fullmatch(path.name))


def is_ours(directory: Path) -> bool:
    """Whether this package wrote the weights in a directory."""
    try:
        for file in directory.glob("*.safetensors"):
            with safe_open(file, framework="numpy") as weights:
                if (weights.metadata() or {}).get("written_by") == METADATA["written_by"]:
                    return True
    except (SafetensorError, OSError):
        pass
    return False


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """Translates what safetensors raises on a full disk. Raises CheckpointOutputError naming `path`."""
    try:
        yield
    except SafetensorError as error:
        raise CheckpointOutputError(
            f"{path} cannot be written: {error}; free space there, or choose another place"
        ) from error


def write_torch_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as the official code's `torch.save` does, over a file of an earlier try.

    They are in memory twice for a moment: on a full disk torch.save to a file raises a bare RuntimeError.
    Raises CheckpointOutputError.
    """
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    write_file(path, buffer.getvalue(), overwrite=True, error=CheckpointOutputError)


CHECKPOINT = DirectoryKind("checkpoint", checkpoint_members, CheckpointOutputError)
"""What `mobilevlm train` and `mobilevlm make-checkpoint` write."""
