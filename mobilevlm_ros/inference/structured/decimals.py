# SPDX-License-Identifier: Apache-2.0
"""A regular expression for the decimal numbers of a range, exact at both ends."""

from __future__ import annotations

import math
from fractions import Fraction


def decimal_pattern(low: float, high: float, places: int) -> str:
    """Matches every decimal in [low, high] with up to `places` digits after the point, and nothing else.

    Plain notation: no exponent, no leading zeros, no plus sign, no minus zero. The empty string where the
    range holds no such number.
    """
    parts = []
    for count in range(places + 1):
        # With `count` places a number is an integer: low <= n / 10^count <= high.
        scale = 10**count
        first, last = math.ceil(Fraction(low) * scale), math.floor(Fraction(high) * scale)
        if first < 0:
            negative = _written(max(1, -last), -first, count)
            parts += [f"-{part}" for part in negative]
        parts += _written(max(0, first), last, count)
    return "|".join(parts)


def _written(first: int, last: int, places: int) -> list[str]:
    """Patterns of n / 10^places for first <= n <= last, both at least 0, one for each length in digits."""
    parts = []
    for length in range(places + 1, max(places + 1, len(str(last))) + 1):
        # Zeros in front stand only where a digit before the point is needed: '0.07'.
        low = max(first, 0 if length == places + 1 else 10 ** (length - 1))
        high = min(last, 10**length - 1)
        if low <= high:
            parts.append(_between(f"{low:0{length}d}", f"{high:0{length}d}", places))
    return parts


def _between(low: str, high: str, places: int) -> str:
    """Strings of digits from `low` to `high`, equally long, with a point before the last `places` of them."""
    if not low:
        return ""
    rest = len(low) - 1
    point = r"\." if rest == places and places else ""
    if set(low) == {"0"} and set(high) == {"9"}:
        return _any(1) + point + _any_tail(rest, places)
    if low[0] == high[0]:
        return low[0] + point + _between(low[1:], high[1:], places)
    first, last = int(low[0]), int(high[0])
    branches = []
    if set(low[1:]) - {"0"}:
        branches.append(low[0] + point + _between(low[1:], "9" * rest, places))
        first += 1
    if set(high[1:]) - {"9"}:
        branches.append(high[0] + point + _between("0" * rest, high[1:], places))
        last -= 1
    if first <= last:
        digit = str(first) if first == last else f"[{first}-{last}]"
        branches.append(digit + point + _any_tail(rest, places))
    return branches[0] if len(branches) == 1 else f"({'|'.join(branches)})"


def _any_tail(count: int, places: int) -> str:
    """Any `count` digits, with the point among them where it is still to come."""
    if 0 < places < count:
        return _any(count - places) + r"\." + _any(places)
    return _any(count)


def _any(count: int) -> str:
    return "" if count == 0 else "[0-9]" if count == 1 else f"[0-9]{{{count}}}"
