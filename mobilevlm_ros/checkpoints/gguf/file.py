# SPDX-License-Identifier: Apache-2.0
"""GGUF files: metadata, tensors, and which two of them make a MobileVLM."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.checkpoints.content_hash import check_content
from mobilevlm_ros.checkpoints.weights_check import check_beginning
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.json_fields import require

logger = logging.getLogger(__name__)

LANGUAGE, VISION = "llama", "clip"
"""`general.architecture` of the two files."""

REQUIRED = object()
"""Default of a field that must be there."""

_SWAPPED = "S"
_ADVICE = "write it anew with llama.cpp's `llama-quantize --allow-requantize FILE NEW_FILE F16`"


class GGUFFile:
    """Metadata and tensors of one file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError when it is no GGUF file, damaged, a part of one, or big-endian."""
        self.path = path
        check_beginning(path)
        try:
            self._reader = _Reader(path)
            fields = {name: field.contents() for name, field in self._reader.fields.items()}
        except _UnknownType as error:
            raise CheckpointError(f"{path}: {error}") from error
        except Exception as error:  # a reader that is fed nonsense can raise anything
            raise CheckpointError(
                f"{path} is not a GGUF file, or is damaged ({error or type(error).__name__}); copy it again"
            ) from error
        require(
            self._reader.byte_order != _SWAPPED,
            f"{path} has the other byte order than this machine; change it with "
            "`gguf-convert-endian FILE native`",
        )
        self.fields: dict[str, Any] = fields
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        require(
            self.field("split.count", 1) in (0, 1),
            f"{path} is one of several parts; join them with llama.cpp's `llama-gguf-split --merge`",
        )

    @property
    def architecture(self) -> object:
        return self.fields.get("general.architecture")

    def field(self, name: str, default: Any = REQUIRED) -> Any:
        """A metadata value. Raises CheckpointError when it is missing and there is no default."""
        value = self.fields.get(name, default)
        require(value is not REQUIRED, f"{self.path} does not say {name}; convert the model again")
        # Stored in 32 bits: 1e-6 and not 9.99999997e-07.
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def shape(self, name: str) -> tuple[int, ...]:
        """In PyTorch's order: GGUF's is the reverse."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape))

    def check_type(self, name: str) -> None:
        """Raises CheckpointError when the tensor's type is one that gguf cannot dequantise."""
        kind = self.tensors[name].tensor_type
        reader = f"gguf {version('gguf')}"
        require(
            _is_readable(kind),
            f"{self.path}: {name} is of type {kind.name}, which {reader} cannot read; {_ADVICE}",
        )

    def array(self, name: str) -> NDArray[np.float32]:
        """The tensor, dequantised. Raises CheckpointError like `check_type`, for NaN, and for no numbers."""
        self.check_type(name)
        tensor = self.tensors[name]
        try:
            array = gguf.dequantize(tensor.data, tensor.tensor_type)
            array = np.asarray(array, np.float32).reshape(self.shape(name))
        except ValueError as error:  # a size of 0, or one that its blocks do not fill
            raise CheckpointError(
                f"{self.path}: {name} cannot have the shape {self.shape(name)} ({error}); copy it again"
            ) from error
        require(bool(np.isfinite(array).all()), f"{self.path}: {name} holds NaN or infinity; copy it again")
        return array

    def release(self) -> None:
        """Gives back the memory of what was read; the file stays open."""
        mapped = getattr(self._reader.data, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            with suppress(OSError, ValueError):
                mapped.madvise(mmap.MADV_DONTNEED)


@cache
def _is_readable(kind: gguf.GGMLQuantizationType) -> bool:
    _, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


_MANY_FIELDS, _MANY_TENSORS, _MANY_ELEMENTS = 4096, 1 << 16, 400_000
"""Of metadata, tensors and elements of arrays. A MobileLLaMA has about 30, 220 and 96 000; each element costs
the library 50 microseconds and half a kilobyte."""


def _check_count(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise ValueError(f"it tells of {int(count)} {what}, more than the {limit} that a MobileVLM can have")


class _UnknownType(ValueError):
    """A tensor's type has no meaning to gguf."""


class _Reader(gguf.GGUFReader):
    """Names a tensor of unknown type, and notices the end of a cut file, where the library's goes on."""

    def _build_tensors(self, start_offs: int, fields: list[gguf.ReaderField]) -> None:
        for field in fields:
            _, name, _, _, kind, _ = field.parts
            try:
                gguf.GGMLQuantizationType(kind[0])
            except ValueError as error:
                raise _UnknownType(
                    f"{bytes(name).decode(errors='replace')} is of type number {kind[0]}, which gguf "
                    f"{version('gguf')} does not know; install a newer gguf, or {_ADVICE}"
                ) from error
        super()._build_tensors(start_offs, fields)

    def _build_fields(self, offs: int, count: int) -> int:
        self._elements = 0
        _check_count(count, _MANY_FIELDS, "metadata")
        return super()._build_fields(offs, count)

    def _build_tensor_info(self, offs: int, count: int) -> tuple[int, list[gguf.ReaderField]]:
        _check_count(count, _MANY_TENSORS, "tensors")
        return super()._build_tensor_info(offs, count)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type == gguf.GGUFValueType.ARRAY:
            self._elements += int(self._get(orig_offs + 4, np.uint64)[0])  # behind the elements' type
            _check_count(self._elements, _MANY_ELEMENTS, "elements of arrays in its metadata")
        return super()._get_field_parts(orig_offs, raw_type)

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> NDArray[Any]:
        end = int(offset) + int(count) * np.dtype(dtype).itemsize
        if not 0 <= int(offset) <= end <= len(self.data):
            raise ValueError(f"it ends before byte {end}")
        return super()._get(int(offset), dtype, count, override_order)


def find_gguf(path: Path, mmproj: Path | None = None) -> tuple[GGUFFile, GGUFFile]:
    """The language model's file and the tower's.

    `path` is the language model's, or the directory of both; without `mmproj` the tower's is looked for
    beside it. Raises CheckpointError when it is not clear which files are meant.
    """
    given = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
    language = _only(given, LANGUAGE, path, "name the one to use instead of the directory")
    if mmproj is not None:
        vision = GGUFFile(mmproj)
        _check_architecture(vision, VISION)
    else:
        beside = [file for file in sorted(language.path.parent.glob("*.gguf")) if file != language.path]
        vision = _only(beside, VISION, language.path.parent, "give it with --mmproj FILE")
    for file in (language, vision):
        check_content(file.path)
    return language, vision


def _only(paths: Sequence[Path], architecture: str, where: Path, advice: str) -> GGUFFile:
    if paths == [where]:
        file = GGUFFile(where)
        _check_architecture(file, architecture)
        return file
    files = [file for file in filter(None, map(_open_neighbour, paths)) if file.architecture == architecture]
    what = {LANGUAGE: "language model", VISION: "image encoder (mmproj)"}[architecture]
    count = f"{len(files)} files with" if files else "no file with"
    require(len(files) == 1, f"{where} holds {count} a MobileVLM's {what} in GGUF; {advice}")
    return files[0]


def _open_neighbour(path: Path) -> GGUFFile | None:
    """A file of a directory, if it can be read: one that is not wanted shall not decide."""
    try:
        return GGUFFile(path)
    except CheckpointError as error:
        logger.warning("passed over: %s", error)
        return None


def _check_architecture(file: GGUFFile, expected: str) -> None:
    advice = {
        LANGUAGE: "give the MobileLLaMA's GGUF file first, and the encoder's with --mmproj",
        VISION: "--mmproj takes the encoder's GGUF file (mmproj-*.gguf)",
    }
    require(
        file.architecture == expected,
        f"{file.path} has architecture {file.architecture!r}, not {expected!r}; {advice[expected]}",
    )
