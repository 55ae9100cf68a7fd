# SPDX-License-Identifier: Apache-2.0
"""Where the time of an answer goes."""

from __future__ import annotations

from time import perf_counter

from mobilevlm_ros.inference.types import Latency


class Stopwatch:
    """Time spent in each part of `Latency`; time between `pause` and `resume` belongs to someone else."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._mark = perf_counter()

    def lap(self, part: str) -> None:
        """What passed since the last mark was spent on `part`."""
        now = perf_counter()
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._mark
        self._mark = now

    def resume(self) -> None:
        """What passed since the last mark does not count."""
        self._mark = perf_counter()

    def latency(self, share: int = 1) -> Latency:
        """The split so far, in seconds; of work done for several answers, an equal part of it."""
        return Latency(**{part: seconds / share for part, seconds in self._seconds.items()})
