# SPDX-License-Identifier: Apache-2.0
"""How hostile.py changes bytes and documents."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**64, -(2**63), 10**40, 1e308, -0.0, 1e-320),
    *("", "x", "\x00", "\ud800", "../../etc/passwd", "/dev/zero", "a" * 5000, "1e400", "NaN", "\u202e"),
    *([], {}, [[]], [None], {"": ""}, {"a": {"b": [1]}}, [0] * 100, ["x"] * 40),
)
WORDS = (
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x01",
    b"{",
    b"}",
    b'"',
)


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bits, words, cuts, copies and insertions; most often near the beginning, where sizes stand."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        size = len(made)
        if not size:
            return bytes(rng.randbytes(rng.randrange(64)))
        at = rng.randrange(min(size, rng.choice((16, 64, 512, size))))
        kind = rng.randrange(7)
        if kind == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            word = rng.choice(WORDS)
            made[at : at + len(word)] = word
        elif kind == 2:
            made[at : at + 8] = rng.choice((0, 1, 2**31, 2**32, 2**62, 2**64 - 1)).to_bytes(8, "little")
        elif kind == 3:
            del made[rng.randrange(size) :]
        elif kind == 4:
            del made[at : at + rng.randrange(1, 64)]
        elif kind == 5:
            made[at:at] = made[at : at + rng.randrange(1, 64)] * rng.randrange(1, 4)
        else:
            made[at:at] = rng.randbytes(rng.randrange(1, 16))
    return bytes(made)


def changed_value(value: Any, rng: random.Random) -> Any:
    """A document with some of its values, keys or branches replaced."""
    made = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        holders = list(_holders(made))
        if not holders:
            return rng.choice(VALUES)
        holder, key = rng.choice(holders)
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(("x", "", "\ud800", "__class__", "a" * 300))] = holder.pop(key)
        elif kind == 2:
            other, where = rng.choice(holders)
            holder[key] = copy.deepcopy(other[where])
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return made


def _holders(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _holders(inner)


def changed_text(document: Any, dump: Callable[[Any], str], rng: random.Random) -> bytes:
    """A document, changed as a value (most often) or as bytes."""
    if rng.random() < 0.25:
        return changed_bytes(dump(document).encode("utf-8", "surrogatepass"), rng)
    return dump(changed_value(document, rng)).encode("utf-8", "surrogatepass")


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
