# SPDX-License-Identifier: Apache-2.0
"""Values of a JSON object, each checked for its kind; every complaint names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mobilevlm_ros.files.kinds import FLAG, LIST, NUMBER, OBJECT, TEXT, TEXTS, WHOLE, Kind, kind_of
from mobilevlm_ros.server.api_error import ApiError


class Fields:
    """A JSON object of a request. null counts as absent, as in the OpenAI API.

    Args:
        values: the object.
        path: what stands before a field's name in complaints, e.g. 'messages[0].'.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self._path = path

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def raw(self, name: str) -> Any:
        """Whatever it is; None where it is absent."""
        return self._values.get(name)

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        return default if name not in self else str(self._of(name, TEXT))

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        return default if name not in self else bool(self._of(name, FLAG))

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number from `low` to `high`."""
        if name not in self:
            return default
        value = self._of(name, NUMBER)
        # Compared before converted: a JSON integer may be too large for a float.
        if value != value or not low <= value <= high:
            raise self.wrong(name, f"is {_short(value)}: give a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        """A whole number from `low` to `high`."""
        if name not in self:
            return default
        value = self.raw(name)
        whole = isinstance(value, float) and math.isfinite(value) and value == int(value)
        if not WHOLE.fits(value) and not whole:
            raise self.wrong(name, f"must be {WHOLE.name}, got {_short(value)}")
        if not low <= value <= high:
            raise self.wrong(name, f"is {_short(value)}: give a whole number from {low} to {high}")
        return int(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A string, or a list of strings."""
        if name not in self:
            return ()
        value = self.raw(name)
        if TEXT.fits(value):
            return (value,)
        if not TEXTS.fits(value):
            raise self.wrong(name, "must be a string or a list of strings")
        return tuple(value)

    def object(self, name: str) -> Fields:
        """An object; empty where it is absent."""
        value = {} if name not in self else self._of(name, OBJECT)
        return Fields(value, f"{self._path}{name}.")

    def objects(self, name: str) -> list[Fields]:
        """A list of objects."""
        value = [] if name not in self else self._of(name, LIST)
        for at, item in enumerate(value):
            if not OBJECT.fits(item):
                raise self.wrong(f"{name}[{at}]", f"must be {OBJECT.name}, got {_word(item)}")
        return [Fields(item, f"{self._path}{name}[{at}].") for at, item in enumerate(value)]

    def only(self, known: frozenset[str]) -> None:
        """Refuse fields of other names."""
        for name in self._values:
            if name not in known and self._values[name] is not None:
                raise ApiError(
                    400,
                    f"unknown field {self._path + name[:80]!r}: this server does not know it, leave it out",
                    "unknown_parameter",
                    self._path + name[:80],
                )

    def path(self, name: str) -> str:
        """A field's name as complaints tell it."""
        return f"{self._path}{name}"

    def wrong(self, name: str, what: str, code: str = "invalid_parameter") -> ApiError:
        """The error that says what is wrong with a field."""
        return ApiError(400, f"{self._path}{name} {what}", code, f"{self._path}{name}")

    def _of(self, name: str, kind: Kind) -> Any:
        value = self.raw(name)
        if not kind.fits(value):
            wanted = "a string" if kind is TEXT else kind.name
            raise self.wrong(name, f"must be {wanted}, got {_word(value)}")
        return value


def _word(value: Any) -> str:
    """What a JSON value is, in the words of the OpenAI API."""
    return "a string" if TEXT.fits(value) else kind_of(value)


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 10**20:  # its digits may be too many to write
        return "a number of more than 20 digits"
    return repr(value)[:40]
