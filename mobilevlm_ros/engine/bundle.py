# SPDX-License-Identifier: Apache-2.0
"""A bundle: one directory with all a robot needs to serve a model, described and sealed by bundle.json."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.manifest import (
    DECODER,
    DECODER_TREE,
    EMBEDDINGS,
    MANIFEST,
    PREFILL,
    PREFILL_TREE,
    SCHEMA_VERSION,
    VISION,
    Aspect,
    Manifest,
    is_plain_name,
)
from mobilevlm_ros.engine.sealed_file import FileState, is_unchanged, read_all, reading, sha256, verify
from mobilevlm_ros.errors import BundleError, BundleOutputError, ConfigurationError
from mobilevlm_ros.files.atomic import check_file, remove_file, write_file
from mobilevlm_ros.files.atomic_directory import interrupted_replacement
from mobilevlm_ros.files.small_file import read_small_file
from mobilevlm_ros.processing.tokenizer import TOKENIZER

__all__ = [
    "DECODER",
    "DECODER_TREE",
    "EMBEDDINGS",
    "MANIFEST",
    "PREFILL",
    "PREFILL_TREE",
    "SCHEMA_VERSION",
    "VISION",
    "Aspect",
    "Bundle",
    "Manifest",
    "seal",
    "sha256",
]

_LARGEST_MANIFEST = 16 << 20  # bytes
_ESSENTIAL = frozenset(
    (MANIFEST, VISION, f"{VISION}.data", DECODER, f"{DECODER}.data", EMBEDDINGS, TOKENIZER)
)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest
    verified: Mapping[str, FileState] = field(default_factory=dict, compare=False, repr=False)
    """Its files, the manifest too, as they were when they were verified; empty for one that was just made."""

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Reads and verifies a bundle directory. Raises BundleError, which says what to do."""
        path = Path(path)
        _check_is_bundle(path)
        file = path / MANIFEST
        try:
            text = read_small_file(file.absolute(), _LARGEST_MANIFEST, "manifest").decode()
        except (ConfigurationError, UnicodeDecodeError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from error
        manifest = Manifest.from_json(text, str(file))
        verified = {MANIFEST: _state(file)}
        for name, entry in manifest.files.items():
            verified[name] = verify(path / name, entry["bytes"], entry["sha256"])
        return cls(path, manifest, verified)

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files. Raises BundleError if the manifest does not list it."""
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.path} has no {name}; build it again with `mobilevlm build`")
        return self.path / name

    def read(self, name: str) -> NDArray[np.uint8]:
        """The content of one of the bundle's files, u8 [bytes]. Raises BundleError, also when it is no longer
        what was verified."""
        return read_all(self.file(name), self.verified.get(name))

    def reading(self, name: str) -> AbstractContextManager[BinaryIO]:
        """One of the bundle's files, opened to be read. Raises BundleError as `read`."""
        return reading(self.file(name), self.verified.get(name))

    def changed_files(self) -> list[str]:
        """Which of the files are no longer what was verified: written to, replaced or removed."""
        return [name for name, state in self.verified.items() if not is_unchanged(self.path / name, state)]

    def add_file(self, name: str, content: bytes, ours: Callable[[Path], bool] | None = None) -> Bundle:
        """Adds or replaces an optional file such as calibration.json, and returns the bundle with it.

        Whoever opens the bundle meanwhile, or after a power cut, finds it valid: with the old file, with the
        new one, or without one. `ours` tells whether a file of this name that the manifest does not list is
        one that an interrupted `add_file` left; others' files are not replaced. Raises ValueError for a name
        that is not plain or that belongs to the model itself, BundleError when it cannot be written; the
        bundle is then as it was, or without the file.
        """
        self._check_optional(name)
        known = name in self.manifest.files
        others = {key: entry for key, entry in self.manifest.files.items() if key != name}
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        try:
            check_file(self.path / name, overwrite=known, ours=ours, error=BundleOutputError)
            if known:  # the manifest never lists a file whose content it does not know
                self._write_manifest(others)
            write_file(self.path / name, content, overwrite=known, ours=ours, error=BundleOutputError)
            return self._write_manifest({**others, name: entry})
        except BundleOutputError as error:
            raise BundleOutputError(
                f"cannot write {name} into bundle {self.path}: {error.__cause__ or error}; free space there, "
                "allow writing to it, or copy the bundle to another place"
            ) from error

    def remove_file(self, name: str) -> Bundle:
        """Takes an optional file away, if the bundle has it, and returns the bundle without it.

        A file of that name that the manifest does not list is left alone. Raises as `add_file`.
        """
        self._check_optional(name)
        if name not in self.manifest.files:
            return self
        try:
            bundle = self._write_manifest({k: v for k, v in self.manifest.files.items() if k != name})
            remove_file(self.path / name)
        except OSError as error:
            raise BundleOutputError(f"cannot remove {name} from bundle {self.path}: {error}") from error
        return bundle

    @staticmethod
    def _check_optional(name: str) -> None:
        if not is_plain_name(name) or name in _ESSENTIAL:
            raise ValueError(f"{name!r} is not the name of an optional file of a bundle")

    def _write_manifest(self, files: dict[str, dict[str, Any]]) -> Bundle:
        manifest = dataclasses.replace(self.manifest, files=dict(sorted(files.items())))
        file = self.path / MANIFEST
        if file.is_symlink():
            raise BundleOutputError(f"{file} is a link; copy the bundle with `cp -rL` first")
        write_file(file, manifest.to_json().encode(), overwrite=True, error=BundleOutputError)
        verified = {
            name: state
            for name, state in self.verified.items()
            if files.get(name) == self.manifest.files.get(name)
        }
        return Bundle(self.path, manifest, {**verified, MANIFEST: _state(file)} if verified else {})


def _state(file: Path) -> FileState:
    try:
        return FileState.of(file.stat())
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error}") from error


def _check_is_bundle(path: Path) -> None:
    if not path.exists():
        if old := interrupted_replacement(path):
            raise BundleError(f"bundle {path} is gone: replacing it was interrupted; the old one is {old}")
        raise BundleError(
            f"bundle {path} does not exist; make one with `mobilevlm build CHECKPOINT -o {path}`"
        )
    if not path.is_dir():
        raise BundleError(f"{path} is a file; a bundle is a directory that holds {MANIFEST}")
    if (path / MANIFEST).is_file():
        return
    if (path / "config.json").is_file():
        raise BundleError(
            f"{path} is a checkpoint, not a bundle; run `mobilevlm build {path} -o BUNDLE` and use BUNDLE"
        )
    raise BundleError(
        f"{path} is not a bundle (no {MANIFEST}); make one with `mobilevlm build CHECKPOINT -o {path}`"
    )


def seal(names: list[str], directory: Path) -> dict[str, dict[str, Any]]:
    """The manifest's `files` entry for `names` in `directory`."""
    return {
        name: {"bytes": (directory / name).stat().st_size, "sha256": sha256(directory / name)}
        for name in sorted(names)
    }
