# SPDX-License-Identifier: Apache-2.0
"""How old a picture is: by its stamp, and since it arrived. Numbers only, no ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SLOWEST = 0.05
"""Of the node's clock against real time: a simulation that runs slower than this counts as one that does."""

RATE_WINDOW = 5.0
"""Real seconds over which the rate of the node's clock is measured."""

PAUSE = 2.0
"""Real seconds without a step of the node's clock after which it stands still."""

LEAP = 60.0
"""Seconds by which a clock that is not set anew goes on between two looks, at most."""


@dataclass(frozen=True)
class Age:
    """Of a picture at some instant.

    A stamp alone proves nothing: where the camera's clock is ahead, or the node's stands still, a camera that
    died is young for ever. The time since arrival alone proves nothing either: an old picture may arrive now.

    Attributes:
        by_stamp: seconds from the stamp to the instant, in the node's clock; None where the picture has no
            stamp or the node has no time.
        since_arrival: real seconds from its arrival at this node to the instant.
        rate: seconds of the node's clock in one real second, at most 1.
    """

    by_stamp: float | None
    since_arrival: float
    rate: float = 1.0

    @property
    def seconds(self) -> float:
        """The greater of the two, seconds of the node's clock: what max_age is compared with."""
        arrived = self.since_arrival * self.rate
        return arrived if self.by_stamp is None else max(self.by_stamp, arrived)

    @property
    def delay(self) -> float:
        """Seconds from stamp to arrival: negative where the camera's clock is ahead; 0 where unknown."""
        return 0.0 if self.by_stamp is None else self.by_stamp - self.since_arrival * self.rate

    def within(self, max_age: float) -> bool:
        """Whether it is no older than max_age, seconds; negative = any age will do."""
        return max_age < 0 or self.seconds <= max_age


class ClockWatch:
    """Watches how the node's clock goes against real time. Not thread-safe.

    A simulation that runs at a tenth of real time sends a tenth of its pictures in a real second: the time
    since their arrival is worth a tenth of it. One that stands still is worth what it was worth before.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()  # real seconds, nanoseconds of the clock

    def observe(self, now_ns: int, steady: float) -> None:
        """Take a look: the clock's time in nanoseconds, at a real time in (monotonic) seconds."""
        if self._steps:
            before, shown = self._steps[-1]
            if now_ns == shown:
                return
            leap = not 0 < (now_ns - shown) * 1e-9 < LEAP
            if leap or shown == 0 or steady - before > PAUSE:  # set, or gone on after a pause
                self._steps.clear()
        self._steps.append((steady, now_ns))
        while steady - self._steps[0][0] > RATE_WINDOW:
            self._steps.popleft()

    @property
    def rate(self) -> float:
        """Seconds of the clock in a real second, from SLOWEST to 1; 1 while there is too little to tell."""
        if len(self._steps) < 2:
            return 1.0
        (start, first), (end, last) = self._steps[0], self._steps[-1]
        if end - start < 0.5:
            return 1.0
        return min(1.0, max(SLOWEST, (last - first) * 1e-9 / (end - start)))

    def still_for(self, steady: float) -> float:
        """Real seconds since the clock was last seen to move."""
        return steady - self._steps[-1][0] if self._steps else 0.0


def arrival_time(info: Mapping[str, Any], looked: float, steady: float, wall_ns: int) -> float:
    """When a message arrived, monotonic seconds.

    Args:
        info: what the middleware tells about it; `received_timestamp` and `source_timestamp` are nanoseconds
            of this and of the sender's system clock, 0 or absent where it does not tell.
        looked: when the queue was last seen empty, monotonic seconds; it came after that.
        steady, wall_ns: now, by the monotonic and by the system clock.
    """
    told = info.get("received_timestamp") or info.get("source_timestamp") or wall_ns
    return min(steady, max(looked, steady - (wall_ns - told) * 1e-9))
