# SPDX-License-Identifier: Apache-2.0
"""Which way the stamps of one topic go: onward, a little back, or into another run of time. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

WINDOW_NS = 1_000_000_000
"""Frames whose stamps lie no further apart than this may overtake each other; further back is another run of
time, or another clock.
"""

RETURN = 5.0
"""Seconds in which the stamps of another clock on the same topic come again."""


class Step(Enum):
    """What the stamp of a new frame means."""

    ONWARD = "later than those before"
    LATE = "overtaken on the way: a little earlier than the newest"
    MIXED = "of another clock on the same topic"
    JUMP = "of another run of time: a bag that loops, a simulation that starts again"


@dataclass(frozen=True)
class _Seen:
    """A frame: its stamp, and its arrival in monotonic seconds."""

    stamp_ns: int
    arrived: float

    @property
    def offset(self) -> float:
        """Of the clock that stamped it against this machine's monotonic one, seconds."""
        return self.stamp_ns * 1e-9 - self.arrived


class StampOrder:
    """Tells overtaking frames and several clocks from a real jump back. Not thread-safe.

    A bag that loops leaves its old time for good. Two publishers on one topic come back to each other's time
    again and again; so does a camera after one wrong stamp.
    """

    def __init__(self) -> None:
        self._newest: _Seen | None = None
        self._others: list[_Seen] = []  # the last frames of other clocks
        self._left: _Seen | None = None  # the clock that went before; whether it comes back is open
        self._last: _Seen | None = None
        self._same_since = 0.0
        self._mixed: float | None = None

    def add(self, stamp_ns: int, arrived: float, several: bool = False) -> Step:
        """Take the next frame.

        Args:
            stamp_ns: nanoseconds.
            arrived: monotonic seconds.
            several: more than one publisher is known, so a step back is no jump until the clock before has
                been silent for RETURN seconds.
        """
        seen = _Seen(stamp_ns, arrived)
        if self._last is None or self._last.stamp_ns != stamp_ns:
            self._same_since = arrived
        self._last = seen
        step = self._step(seen, several)
        if step is Step.MIXED:
            self._mixed = arrived
        return step

    @property
    def still_for(self) -> float:
        """Seconds over which frames have arrived with one and the same stamp."""
        return 0.0 if self._last is None else self._last.arrived - self._same_since

    def mixed(self, steady: float) -> bool:
        """Whether stamps of several clocks came within the last RETURN seconds."""
        return self._mixed is not None and steady - self._mixed <= RETURN

    def _step(self, seen: _Seen, several: bool) -> Step:
        newest, left = self._newest, self._left
        if newest is None:
            self._newest = seen
            return Step.ONWARD
        if left is not None and seen.arrived - left.arrived > RETURN:  # it did not come back
            self._newest, self._others, self._left = seen, [], None
            return Step.JUMP
        back = newest.stamp_ns - seen.stamp_ns
        known = next((other for other in self._others if _same_clock(other, seen)), None)
        self._others = [o for o in self._others if o is not known and seen.arrived - o.arrived <= RETURN]
        if known is not None and left is not None and _same_clock(left, seen):
            self._left = None
        if 0 < back <= WINDOW_NS:
            if seen.arrived - newest.arrived > WINDOW_NS * 1e-9:  # the clock was set back a little
                self._newest = seen
            return Step.LATE
        if back > WINDOW_NS and known is None and not several:
            self._newest, self._others = seen, [newest]
            return Step.JUMP
        if back > WINDOW_NS and known is None:
            self._left = newest
        if abs(seen.offset - newest.offset) > WINDOW_NS * 1e-9:
            self._others.append(newest)  # it may come back
        self._newest = seen
        return Step.MIXED if back > WINDOW_NS or known is not None else Step.ONWARD


def _same_clock(other: _Seen, seen: _Seen) -> bool:
    """Whether a frame goes on where another one of a moment ago was."""
    near = abs(seen.offset - other.offset) <= WINDOW_NS * 1e-9
    return near and seen.arrived - other.arrived <= RETURN
