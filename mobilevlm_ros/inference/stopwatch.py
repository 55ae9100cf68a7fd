# SPDX-License-Identifier: Apache-2.0
"""Where the time of an answer goes."""

from __future__ import annotations

from collections.abc import Generator
from time import perf_counter
from typing import TypeVar

from mobilevlm_ros.inference.types import Latency

T = TypeVar("T")


class Stopwatch:
    """Time spent in each part of `Latency`; time between a lap and `resume` belongs to someone else."""

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

    def timed(self, part: str, steps: Generator[str, None, T]) -> Generator[str, None, T]:
        """The same steps, each a lap of `part`."""
        try:
            while True:
                delta = next(steps)
                self.lap(part)
                yield delta
                self.resume()
        except StopIteration as end:
            self.lap(part)
            result: T = end.value
            return result
        finally:
            steps.close()

    def latency(self, share: int = 1) -> Latency:
        """The split so far, in seconds; of work done for several answers, an equal part of it."""
        return Latency(**{part: seconds / share for part, seconds in self._seconds.items()})
