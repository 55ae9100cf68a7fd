# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint directory, in every layout that is published, read only when asked for.

Nothing in a checkpoint is executed: `.bin` files go through PyTorch's weights-only unpickler.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError  # nosec B403
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mobilevlm_ros.checkpoints.content_hash import check_content
from mobilevlm_ros.checkpoints.other_layouts import describe_files
from mobilevlm_ros.checkpoints.weights_check import check_beginning
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.json_fields import read_json

LAYOUTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The files that can hold or index the weights; the first one found is used, as transformers does."""


class CheckpointReader:
    """Memory-mapped access to the tensors of one directory."""

    def __init__(self, path: str | Path) -> None:
        """Raises CheckpointError when `path` has none of LAYOUTS, or its file or index is damaged."""
        self.path = Path(path)
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path} is not a directory; give that of a MobileVLM checkpoint")
        layout = next((name for name in LAYOUTS if (self.path / name).is_file()), None)
        if layout is None:
            told = describe_files(self.path)
            raise CheckpointError(
                f"{self.path} holds no weights; expected one of {', '.join(LAYOUTS)}{told and '; ' + told}"
            )
        self._files: dict[str, _Bin | _Safetensors] = {}
        self._checked: set[str] = set()
        if layout.endswith(".json"):
            self._where = self._read_index(layout)
        else:
            self._where = dict.fromkeys(self._open(layout).keys, layout)

    def keys(self) -> list[str]:
        """The names of all tensors."""
        return list(self._where)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def unlisted(self) -> dict[str, str]:
        """Tensors that are in the shards and not in the index, with their file. Raises CheckpointError."""
        files = sorted(set(self._where.values()))
        return {key: file for file in files for key in self._open(file).keys if key not in self._where}

    def shape(self, key: str) -> tuple[int, ...]:
        """Reads no weights. Raises CheckpointError for an unknown key or a damaged file."""
        return self._holder(key).shape(key)

    def tensor(self, key: str) -> Tensor:
        """The tensor in its stored dtype, still backed by the file. Raises CheckpointError like `shape`."""
        return self._holder(key).tensor(key)

    def release(self) -> None:
        """Close the files, so that what was read of them no longer counts as this process's memory.

        Tensors in use keep theirs; the next `tensor` opens its file again.
        """
        self._files.clear()

    def _holder(self, key: str) -> _Bin | _Safetensors:
        if key not in self._where:
            raise CheckpointError(f"{self.path} has no tensor {key}")
        holder = self._open(self._where[key])
        if key not in holder.keys:
            raise CheckpointError(f"{self.path / self._where[key]} lacks {key}, which the index places there")
        return holder

    def _read_index(self, layout: str) -> dict[str, str]:
        where = read_json(self.path / layout).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
            raise CheckpointError(f"{self.path / layout} has no usable weight_map")
        for name in sorted(set(where.values())):
            # A shard lies beside its index: a path that leads elsewhere is no checkpoint's.
            if Path(name).name != name or not (self.path / name).is_file():
                raise CheckpointError(f"{self.path / layout} names the shard {name!r}, which is not there")
        return where

    def _open(self, name: str) -> _Bin | _Safetensors:
        if name not in self._files:
            if name not in self._checked:
                check_beginning(self.path / name)
                _check_sums(self.path / name)
                check_content(self.path / name)
                self._checked.add(name)
            kind = _Safetensors if name.endswith(".safetensors") else _Bin
            self._files[name] = kind(self.path / name)
        return self._files[name]


def _check_sums(path: Path) -> None:
    """Compares what a `.bin` file of PyTorch 1.6 or newer, a zip archive, holds with its CRC-32 sums, which
    torch.load does not. Reads the file once."""
    if path.suffix == ".safetensors":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # older than 1.6, or torch.load says what it is
        return
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged} in it is wrong; copy it again")


class _Bin:
    def __init__(self, path: Path) -> None:
        try:
            self._tensors = _load_bin(path)
        except Exception as error:  # an unpickler that reads nonsense can raise anything
            # PyTorch's own text recommends to run what the file holds.
            why = "" if isinstance(error, UnpicklingError) else f" ({' '.join(str(error).split())[:200]})"
            raise CheckpointError(
                f"{path} is damaged, or holds more than weights{why}; nothing in it was executed. Copy it "
                "again, or save the weights alone, best as safetensors"
            ) from error
        tensors = self._tensors.values() if isinstance(self._tensors, dict) else [None]
        named = isinstance(self._tensors, dict) and all(isinstance(key, str) for key in self._tensors)
        if not named or not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise CheckpointError(f"{path} does not hold a dictionary of tensors by their names")
        self.keys = frozenset(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._tensors[key].shape)

    def tensor(self, key: str) -> Tensor:
        tensor: Tensor = self._tensors[key]
        return tensor.detach()  # some files hold parameters


def _load_bin(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except RuntimeError as error:
        if "mmap" not in str(error):  # what PyTorch before 1.6 wrote cannot be mapped
            raise
    return torch.load(path, map_location="cpu", weights_only=True)


class _Safetensors:
    def __init__(self, path: Path) -> None:
        self._file = _open_safetensors(path)
        self.keys: frozenset[str] = frozenset(self._file.keys())

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(key).get_shape())

    def tensor(self, key: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(key)
        return tensor


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged, or no safetensors file: {error}") from error
