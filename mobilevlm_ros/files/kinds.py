# SPDX-License-Identifier: Apache-2.0
"""What a value of a JSON or YAML file is: the one place that knows that Python's True is an int."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of value. `name` is for messages: 'expected a whole number'."""

    name: str
    fits: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(kind: Kind) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind.fits, value))


def _is_object_of(kind: Kind) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(kind.fits, value.values()))


TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
WHOLE = Kind("a whole number", _is_whole)
COUNT = Kind("a whole number from 0 on", lambda value: _is_whole(value) and value >= 0)
NUMBER = Kind("a number", lambda value: _is_whole(value) or isinstance(value, float))
"""NaN and infinity too: JSON as Python reads it, and YAML, have them. A range refuses them."""
LIST = Kind("a list", lambda value: isinstance(value, list))
TEXTS = Kind("a list of texts", _is_list_of(TEXT))
COUNTS = Kind("a list of whole numbers from 0 on", _is_list_of(COUNT))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
TEXT_OBJECT = Kind("an object of texts", _is_object_of(TEXT))
NUMBER_OBJECT = Kind("an object of numbers", _is_object_of(NUMBER))

KINDS: dict[type, Kind] = {
    str: TEXT, bool: FLAG, int: WHOLE, float: NUMBER, list: LIST, tuple: LIST, dict: OBJECT,
}  # fmt: skip
"""The kind of file value that becomes a Python type."""


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    found = next((kind for kind in (TEXT, FLAG, NUMBER, LIST, OBJECT) if kind.fits(value)), None)
    return found.name if found else type(value).__name__
