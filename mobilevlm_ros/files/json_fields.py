# SPDX-License-Identifier: Apache-2.0
"""JSON objects from a checkpoint into dataclasses, every field checked, every complaint naming the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from mobilevlm_ros.errors import CheckpointError, ConfigurationError, MobileVLMError
from mobilevlm_ros.files.atomic import write_file
from mobilevlm_ros.files.kinds import KINDS, OBJECT, kind_of
from mobilevlm_ros.files.small_file import LFS_ADVICE, LFS_POINTER, read_small_file

Json = Mapping[str, Any]
T = TypeVar("T")

_LARGEST_FILE = 64 << 20
"""Bytes; the index of a checkpoint with a million tensors has fewer."""
_LONGEST_QUOTE = 60
_LARGEST = 1 << 24
"""No size in a model's configuration reaches this; a larger one is a damaged or hostile file."""


def read_json(
    path: Path,
    error: type[MobileVLMError] = CheckpointError,
    remedy: str = "give the directory of a MobileVLM checkpoint",
) -> dict[str, Any]:
    """A JSON object from a file. Raises `error`, with what to do, when it is missing, unreadable, or no
    object."""
    try:
        if not path.exists():
            raise error(f"{path} does not exist; {remedy}")
        content = read_small_file(path.absolute(), _LARGEST_FILE, "JSON file")
        if content.startswith(LFS_POINTER):
            raise ConfigurationError(f"{path} cannot be read: {LFS_ADVICE}")
        data = json.loads(content.decode())
    except ConfigurationError as problem:
        raise error(str(problem)) from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read: {problem}; {remedy}") from problem
    if not OBJECT.fits(data):
        raise error(f"{path} holds {kind_of(data)}, not an object; {remedy}")
    result: dict[str, Any] = data
    return result


def write_json(path: Path, data: Json, *, overwrite: bool = False) -> None:
    """A JSON object as a file; what JSON does not know, such as an enumeration's member, as its text. Raises
    OutputError as `write_file` does."""
    write_file(path, (json.dumps(data, indent=2, default=str) + "\n").encode(), overwrite=overwrite)


def short(value: object) -> str:
    """A value of a file as an error may quote it: an error text does not grow with the file."""
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


def require(condition: bool, message: str) -> None:
    """Raises CheckpointError with `message` unless `condition` holds."""
    if not condition:
        raise CheckpointError(message)


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Puts `source` before the message of any CheckpointError raised inside."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def build(cls: type[T], data: Json, source: str) -> T:
    """The dataclass `cls` from those keys of `data` that it knows; null and absent keys take its defaults.

    Fields are int, float, str or bool, numbers positive. Raises CheckpointError naming `source` and the key.
    """
    values: dict[str, Any] = {}
    kinds = get_type_hints(cls)
    for item in fields(cls):  # type: ignore[arg-type]
        value = data.get(item.name)
        if value is None:
            continue
        require(
            _fits(value, kinds[item.name]),
            f"{source}: {item.name} is {short(repr(value))}; expected {_expected(kinds[item.name])}",
        )
        values[item.name] = float(value) if kinds[item.name] is float else value
    with naming(source):
        return cls(**values)


def _fits(value: Any, kind: type) -> bool:
    return KINDS[kind].fits(value) and (kind not in (int, float) or 0 < value < _LARGEST)


def _expected(kind: type) -> str:
    return f"a positive {kind.__name__}" if kind in (int, float) else KINDS[kind].name
