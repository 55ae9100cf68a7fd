# SPDX-License-Identifier: Apache-2.0
"""What a query may say, and what of it SQLite can sort out by itself: camera, kind, time and place."""

from __future__ import annotations

import math
from typing import Any

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.memory.record import KINDS, Query

MOST_MATCHES = 100
"""Of one search."""

LONGEST_TEXT = 2000
"""Characters of what is looked for; a question may be as long."""


def check(query: Query) -> None:
    """Raises OptionError for a field that cannot be used."""
    if len(query.text) > LONGEST_TEXT or "\0" in query.text:
        raise OptionError(
            f"text has {len(query.text)} characters: give up to {LONGEST_TEXT}, none of them NUL"
        )
    if query.kind and query.kind not in KINDS:
        raise OptionError(f"kind is {query.kind[:40]!r}: choose one of {', '.join(KINDS)}, or leave it empty")
    if not 1 <= query.limit <= MOST_MATCHES:
        raise OptionError(f"limit is {query.limit}: give a number from 1 to {MOST_MATCHES}")
    if not all(map(math.isfinite, (query.x, query.y, query.radius))) or query.radius < 0:
        raise OptionError(
            f"x, y, radius are {query.x}, {query.y}, {query.radius}: give finite metres, and a radius from 0"
        )
    if query.start_ns and query.end_ns and query.start_ns > query.end_ns:
        raise OptionError("the end of the time is before its start: exchange them")


def filters(query: Query, indexed: bool = True) -> tuple[str, list[Any]]:
    """The condition on `records` in SQL, and its values; empty where everything will do.

    Args:
        indexed: let SQLite choose an index for it; else it only looks at rows that were found otherwise
            (SQLite, "The Query Optimizer Overview": a unary plus).
    """
    parts: list[str] = []
    values: list[Any] = []
    for condition, value in (
        ("camera = ?", query.camera),
        ("kind = ?", query.kind),
        ("stamp_ns >= ?", query.start_ns),
        ("stamp_ns <= ?", query.end_ns),
    ):
        if value:
            parts.append(condition)
            values.append(value)
    if query.radius > 0:
        parts += ["x >= ?", "x <= ?"]
        values += [query.x - query.radius, query.x + query.radius]
    if not indexed:
        parts = [f"+{part}" for part in parts]
    if query.radius > 0:
        parts.append("(x - ?) * (x - ?) + (y - ?) * (y - ?) <= ?")
        values += [query.x, query.x, query.y, query.y, query.radius**2]
    return " AND ".join(parts), values
