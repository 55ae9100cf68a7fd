# SPDX-License-Identifier: Apache-2.0
"""Moments of a recording as people write them: seconds from its start, a time of day, a date, an epoch."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta

from mobilevlm_ros.bags.reading.bag import FOR_EVER, Bag
from mobilevlm_ros.errors import OptionError

_SECOND = 1_000_000_000
_EPOCH_SECONDS = 1e8
"""A larger number is no offset from the start (three years) but seconds since 1970;
1e17 and more are nanoseconds."""
_EPOCH_NANOSECONDS = 1e17
_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?")


def time_range(bag: Bag, start: str | None, end: str | None) -> tuple[int, int]:
    """The first and the last nanosecond of the recording that are meant.

    Args:
        start, end: seconds from the start of the recording ('90', '1.5'); a time of day in this machine's
            time zone ('12:03', '12:03:20.5'); ISO 8601 ('2026-11-28T12:03:00Z'; without a zone this
            machine's); seconds or nanoseconds since 1970. None: no bound.

    Raises:
        OptionError: it is none of these, or the end lies before the start.
    """
    low = FOR_EVER[0] if start is None else moment(start, bag.start_ns or 0, bag.end_ns, "--from")
    high = FOR_EVER[1] if end is None else moment(end, bag.start_ns or 0, bag.end_ns, "--to")
    if low > high:
        raise OptionError(f"--to {end} lies before --from {start}: exchange them")
    return low, high


def moment(text: str, start_ns: int, end_ns: int | None, name: str = "the time") -> int:
    """Nanoseconds of one moment; `start_ns` and `end_ns` of the recording. Raises OptionError."""
    text = text.strip()
    of_day = _OF_DAY.fullmatch(text)
    try:
        if of_day is not None:
            return _time_of_day(of_day, start_ns, start_ns if end_ns is None else end_ns)
        if re.fullmatch(r"-?\d+", text) and abs(int(text)) >= _EPOCH_NANOSECONDS:
            return int(text)
        number = _number(text)
        if number is not None:
            return round(number * _SECOND) + (0 if number >= _EPOCH_SECONDS else start_ns)
        when = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text)
        return _nanoseconds(when)
    except (ValueError, OverflowError, OSError) as error:
        raise OptionError(
            f"{name} is {text!r}: give seconds from the start of the recording, HH:MM, HH:MM:SS, a date as "
            "2026-11-28T12:03:00, or seconds since 1970"
        ) from error


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _time_of_day(match: re.Match[str], start_ns: int, end_ns: int) -> int:
    """On the day on which the recording holds it; else on the one that comes nearest."""
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    fraction = round(float(match[4] or 0) * _SECOND)
    wanted = time(hour, minute, second)
    day = datetime.fromtimestamp(start_ns / _SECOND).date()
    last = datetime.fromtimestamp(end_ns / _SECOND).date()
    days = min((last - day).days, 366) + 3
    found = [_on(day + timedelta(days=offset - 1), wanted) + fraction for offset in range(days)]
    return min(found, key=lambda ns: max(start_ns - ns, ns - end_ns, 0))


def _on(day: date, of_day: time) -> int:
    return _nanoseconds(datetime.combine(day, of_day))


def _nanoseconds(when: datetime) -> int:
    whole = when.replace(microsecond=0)
    return int(whole.timestamp()) * _SECOND + when.microsecond * 1000
