# SPDX-License-Identifier: Apache-2.0
"""Words that YAML 1.1 (PyYAML, ROS) takes for something else: no for false, 12:30 for 750, 010 for 8."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import yaml

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.IGNORECASE)
"""Numbers that everybody reads alike; `1e3` is among them, which YAML 1.1 takes for text."""


@dataclass(frozen=True)
class Misread:
    """A word without quotes that YAML reads as something else than what is written.

    Attributes:
        value: what YAML makes of it.
        written: the word.
    """

    value: Any
    written: str

    @property
    def number(self) -> Any:
        """For where a number is expected: 1e3 is one. Raises ValueError for 12:30, 010, 1_000, a date."""
        if isinstance(self.value, str):
            return float(self.written)
        if isinstance(self.value, bool):
            return self.value
        raise ValueError(
            f"is `{self.written}`, which YAML reads as {_shown(self.value)}: write a decimal number"
        )

    @property
    def text(self) -> str:
        """For where a text is expected. Raises ValueError, with what to write instead."""
        if isinstance(self.value, str):
            return self.value
        shown = "true or false" if isinstance(self.value, bool) else _shown(self.value)
        raise ValueError(f"reads as {shown} in YAML: put it in quotes, '{self.written}'")

    def __repr__(self) -> str:
        return repr(self.value)


def text_of(value: Any) -> str:
    """A text as it is written. Raises ValueError, with what is there and what to write, for anything else."""
    if isinstance(value, Misread):
        return value.text
    if isinstance(value, bool):
        raise ValueError(f"reads as true or false in YAML: put it in quotes, '{str(value).lower()}'")
    if not isinstance(value, str):
        raise ValueError("is no text: put it in quotes")
    return value


def plain(value: Any) -> Any:
    """What YAML makes of a word, whatever is written."""
    return value.value if isinstance(value, Misread) else value


def noticed(node: yaml.ScalarNode, value: Any) -> Any:
    """The value that was constructed from a node, as a `Misread` where it is one."""
    if node.style is not None:  # quoted, or a block: what is written is what is read
        return value
    written = node.value
    if isinstance(value, bool):
        misread = written.lower() not in ("true", "false")
    elif isinstance(value, (int, float)):
        misread = not _DECIMAL.fullmatch(written)
    elif isinstance(value, str):
        misread = any(letter.isdigit() for letter in written) and bool(_DECIMAL.fullmatch(written))
    else:
        misread = isinstance(value, date)
    return Misread(value, written) if misread else value


class Loader(yaml.SafeLoader):
    """A SafeLoader that gives a `Misread` for each word that is one."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        return noticed(node, value) if isinstance(node, yaml.ScalarNode) else value


def _shown(value: Any) -> str:
    return f"the date {value}" if isinstance(value, date) else f"{value!r}"
