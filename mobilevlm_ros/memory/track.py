# SPDX-License-Identifier: Apache-2.0
"""Where the robot was when: positions by time."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Any

from mobilevlm_ros.memory.record import Position

NEAR_ENOUGH = 500_000_000
"""Nanoseconds between a picture and the position that stands for its place, at most."""


class Track:
    """Positions in the order of their stamps. One thread at a time.

    Args:
        most: positions that are kept, the latest ones; 0: all.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._times: list[int] = []
        self._positions: list[Position] = []

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time_ns: int, position: Position) -> None:
        """Take a position; they may come in any order. One of the same time takes the place of the other."""
        at = bisect_right(self._times, time_ns)
        if at and self._times[at - 1] == time_ns:
            self._positions[at - 1] = position
            return
        self._times.insert(at, time_ns)
        self._positions.insert(at, position)
        if self._most and len(self._times) > 2 * self._most:
            del self._times[: self._most], self._positions[: self._most]

    def clear(self) -> None:
        """Forget all of them."""
        self._times.clear()
        self._positions.clear()

    def at(self, time_ns: int) -> Position | None:
        """The position nearest in time; None where none is within NEAR_ENOUGH."""
        right = bisect_left(self._times, time_ns)
        near = [i for i in (right - 1, right) if 0 <= i < len(self._times)]
        best = min(near, key=lambda i: abs(self._times[i] - time_ns), default=None)
        if best is None or abs(self._times[best] - time_ns) > NEAR_ENOUGH:
            return None
        return self._positions[best]


def position_of(message: Any) -> Position | None:
    """Of a nav_msgs/Odometry, geometry_msgs/PoseStamped or PoseWithCovarianceStamped, in the frame of its
    header; None where it holds no numbers.
    """
    pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
    numbers = float(pose.position.x), float(pose.position.y), float(pose.position.z)
    if not all(map(math.isfinite, numbers)):
        return None
    return Position(str(message.header.frame_id).lstrip("/"), *numbers)
