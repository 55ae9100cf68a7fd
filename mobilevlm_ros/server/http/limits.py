# SPDX-License-Identifier: Apache-2.0
"""What one client, and all together, may take from the server."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

from mobilevlm_ros.server.api_error import ApiError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of the server.

    Attributes:
        body: bytes of one request's body.
        bodies: bytes of all bodies that are being read or answered.
        body_seconds: for a client to send its body.
        questions: questions on their way at once.
        rate: requests per second of one client address; 0: any.
        timeout: seconds for an answer where the request names none.
        viewers: open event streams of the web page.
    """

    body: int = 20 * MIB
    bodies: int = 256 * MIB
    body_seconds: float = 30.0
    questions: int = 256
    rate: float = 0.0
    timeout: float = 120.0
    viewers: int = 32


class Gate:
    """Counts what is inside and refuses what is too much.

    Args:
        capacity: the most.
        what: of which, for the refusal.
    """

    def __init__(self, capacity: int, what: str) -> None:
        self.capacity = capacity
        self.inside = 0
        self._what = what

    @contextlib.contextmanager
    def passing(self, amount: int = 1) -> Iterator[None]:
        """Hold `amount` while it is entered. Raises ApiError (503) where it does not fit."""
        if self.inside + amount > self.capacity:
            raise ApiError(503, f"the server is busy ({self._what}): ask again later", "busy", retry_after=1)
        self.inside += amount
        try:
            yield
        finally:
            self.inside -= amount


class RateLimiter:
    """A token bucket for each client address, refilled at `rate` and two seconds deep.

    Args:
        rate: requests per second; 0: no limit.
        clock: monotonic time, seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def check(self, client: str) -> None:
        """Count a request. Raises ApiError (429) where the client asked too often."""
        if self._rate <= 0:
            return
        now, depth = self._clock(), max(1.0, 2 * self._rate)
        tokens, then = self._buckets.pop(client, (depth, now))
        tokens = min(depth, tokens + (now - then) * self._rate)
        self._buckets[client] = (max(0.0, tokens - 1), now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise ApiError(
                429,
                f"more than {self._rate:g} requests per second: ask more slowly",
                "rate_limit_exceeded",
                retry_after=max(1, round((1 - tokens) / self._rate)),
            )


_CLIENTS = 4096  # addresses that are remembered
