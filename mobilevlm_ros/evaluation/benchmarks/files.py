# SPDX-License-Identifier: Apache-2.0
"""Reads benchmark files; whatever is wrong is named with its file and row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.files.kinds import KINDS, OBJECT, kind_of
from mobilevlm_ros.files.small_file import regular

_LARGEST = 4 << 30  # bytes of the file


def find(folder: Path, *names: str) -> Path:
    """The first of the alternatives that is there (a path below `folder`). Raises EvaluationError."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise EvaluationError(
        f"{folder} lacks {' or '.join(names)}; it holds {listing(folder)}: name the benchmark's own folder"
    )


def listing(folder: Path, most: int = 8) -> str:
    """The names in a folder, for messages."""
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        return f"nothing that can be read ({error.strerror or error})"
    shown = ", ".join(names[:most]) or "nothing"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a .jsonl file; empty lines are skipped. Raises EvaluationError."""
    try:
        with regular(path).open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                if raw.strip():
                    yield number, _object(raw, f"{path}, line {number}")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}") from error


def _object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        cut = "" if raw.endswith(b"\n") else "; the line is cut off: a run was stopped while it wrote"
        raise EvaluationError(f"{where} is not JSON ({error}){cut}: correct or delete it") from error
    if not OBJECT.fits(value):
        raise EvaluationError(f"{where} holds {kind_of(value)}, not an object: correct it")
    told: dict[str, Any] = value
    return told


def document(path: Path) -> Any:
    """A whole JSON file. Raises EvaluationError."""
    try:
        return json.loads(regular(path, _LARGEST).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not JSON ({error}): download it again") from error


def entry(value: Any, key: Any, kind: type | tuple[type, ...], where: str) -> Any:
    """`value[key]` of a kind. Raises EvaluationError that names where, the field and what was there."""
    kinds = [KINDS[one] for one in (kind if isinstance(kind, tuple) else (kind,))]
    try:
        found = value[key]
    except (KeyError, TypeError, IndexError):
        raise EvaluationError(
            f"{where} has no field {key!r}: it is not the file this benchmark uses"
        ) from None
    if not any(one.fits(found) for one in kinds):
        wanted = " or ".join(one.name for one in kinds)
        raise EvaluationError(f"{where}: {key!r} is {_short(found)}, expected {wanted}: correct it")
    return found


def only_once(keys: Mapping[Any, int], key: Any, row: int, path: Path) -> None:
    """Raises EvaluationError when `keys` (key to row) already holds the key."""
    if key in keys:
        raise EvaluationError(
            f"{path}, row {row}: question {_short(key)} is also row {keys[key]}: delete one of them"
        )


def check_folder(
    folder: Path, title: str, files: Sequence[tuple[str, ...]], others: Mapping[str, Any]
) -> None:
    """Raises EvaluationError unless the folder holds each of `files` (alternatives in a tuple).

    The message says what was expected and found, and, where the files are another benchmark's, whose.
    `others` are all benchmarks' files, by title.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is no directory: name the folder that holds {title}'s files")
    if all(_present(folder, names) for names in files):
        return
    alike = [
        other
        for other, wanted in others.items()
        if other != title and all(_present(folder, names) for names in wanted)
    ]
    guess = f"; these are files of {alike[0]}" if alike else ""
    wanted = ", ".join(" or ".join(names) for names in files if not _present(folder, names))
    raise EvaluationError(
        f"{folder} is not {title}'s folder: expected {wanted}; found {listing(folder)}{guess}"
    )


def _present(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).exists() for name in names)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
