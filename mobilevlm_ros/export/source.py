# SPDX-License-Identifier: Apache-2.0
"""What a bundle can be built from: checkpoint directories, hub ids, and llama.cpp's GGUF files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from mobilevlm_ros.checkpoints.checkpoint import open_checkpoint
from mobilevlm_ros.checkpoints.hub import is_hub_id, locate
from mobilevlm_ros.checkpoints.tensor_reader import LAYOUTS
from mobilevlm_ros.engine.bundle import sha256
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer

_CHECKPOINT_FILES = ("config.json", "tokenizer.model", "*.safetensors", "*.bin", "*.index.json")


class Tensors(Protocol):
    """Tensors by their names in a checkpoint, read one at a time."""

    def shape(self, key: str) -> tuple[int, ...]:
        """Reads no weights."""

    def tensor(self, key: str) -> Tensor:
        """In the stored floating-point type. Raises CheckpointError."""

    def release(self) -> None:
        """Gives back the memory of what was read."""


@dataclass(frozen=True)
class Source:
    """An opened and checked model; its weights are not read yet."""

    name: str
    """What answers call it unless told otherwise."""
    config: MobileVLMConfig
    tensors: Tensors
    tokenizer: bytes
    """Contents of its `tokenizer.model`."""
    origin: dict[str, str]
    """Its name, and a hub id's revision."""
    files: tuple[Path, ...]
    """Those that determine its answers."""

    def describe(self) -> dict[str, str]:
        """`origin` with one sha256 over all files; reads them whole."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(f"{path.name} {sha256(path)}\n".encode())
        return {**self.origin, "sha256": digest.hexdigest()}


def open_source(name: str | Path, revision: str | None = None, mmproj: Path | None = None) -> Source:
    """A checkpoint directory, a hub id (of `revision`), or GGUF: a file with its `mmproj`, or a directory.

    Raises CheckpointError when it cannot be used.
    """
    if not is_hub_id(name) and _is_gguf(Path(name)):
        return _open_gguf(Path(name), revision, mmproj)
    if mmproj is not None:
        raise CheckpointError(f"{name} is no GGUF file, so --mmproj has nothing to go with; leave it out")
    directory = locate(name, revision)
    config, tensors = open_checkpoint(directory)
    Tokenizer(directory / TOKENIZER)  # refuses a broken one before the long work
    origin = {"name": directory.resolve().name}
    if is_hub_id(name):  # the cache calls a snapshot's directory after its commit
        origin = {"name": str(name), "revision": directory.name}
    files = sorted({path for pattern in _CHECKPOINT_FILES for path in directory.glob(pattern)})
    return Source(
        Path(name).resolve().name,
        config,
        tensors,
        (directory / TOKENIZER).read_bytes(),
        origin,
        tuple(files),
    )


def _is_gguf(path: Path) -> bool:
    if path.is_dir():
        # A config.json beside them is llama.cpp's input at best; one without weights decides nothing.
        return not any((path / name).is_file() for name in LAYOUTS) and any(path.glob("*.gguf"))
    return path.suffix.lower() == ".gguf"


def _open_gguf(path: Path, revision: str | None, mmproj: Path | None) -> Source:
    from mobilevlm_ros.checkpoints.gguf.file import find_gguf
    from mobilevlm_ros.checkpoints.gguf.reader import GGUFTensors, read_config
    from mobilevlm_ros.checkpoints.gguf.tokenizer import rebuild_tokenizer

    if revision is not None:
        raise CheckpointError(f"{path} is a GGUF file, so it has no revision {revision}")
    language, vision = find_gguf(path, mmproj)
    config = read_config(language, vision)
    tensors = GGUFTensors(language, vision, config)
    tokenizer = rebuild_tokenizer(language.field, language.path)
    name = language.field("general.name", None)
    return Source(
        name if isinstance(name, str) and name.strip() else language.path.stem,
        config,
        tensors,
        tokenizer,
        {"name": language.path.name},
        (language.path, vision.path),
    )
