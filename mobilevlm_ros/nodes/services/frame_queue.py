# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for a frame: bounded, fair, and looked at by one timer for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

from mobilevlm_ros.errors import Busy
from mobilevlm_ros.nodes.cameras.camera import Camera

LOOK_PERIOD = 0.05
"""Seconds between looks whether a frame has come."""


@dataclass(eq=False)
class _Waiter:
    """A request that waits."""

    source: str
    cameras: Sequence[Camera]
    ready: Callable[[], bool]
    end: float  # monotonic
    over: Future = field(default_factory=Future)
    gave_way: bool = False


class FrameQueue:
    """Everything runs on the executor's thread.

    Args:
        node: gives the timer.
        group: of the timer.
    """

    def __init__(self, node: Node, group: CallbackGroup) -> None:
        self._node = node
        self._group = group
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._waiting: list[_Waiter] = []
        self._taken: dict[Camera, int] = {}  # by camera that is waited for: frames at the last look
        self._timer: Any = None

    def __len__(self) -> int:
        """Requests that wait now."""
        return len(self._waiting)

    async def until(
        self, ready: Callable[[], bool], cameras: Sequence[Camera], source: str, places: int, end: float
    ) -> None:
        """Wait until `ready` holds. It is asked at once, whenever one of the cameras has a new frame, at the
        end, and by `look`.

        Args:
            ready: whether to wait no longer; true from `end` on.
            cameras: that are waited for.
            source: whose request it is. Where the queue is full, the newest request of the source that has
                the most waiting gives way to a source that has at least two fewer.
            places: requests that may wait at a time.
            end: of the wait, monotonic seconds.

        Raises:
            Busy: the queue is full, or this request gave way to another one.
        """
        for camera in cameras:
            camera.refresh()
        if ready():
            return
        if len(self._waiting) >= places and not self._give_way(source):
            raise Busy(f"{len(self._waiting)} requests wait for a frame already: ask again later")
        waiter = _Waiter(source, cameras, ready, end)
        self._waiting.append(waiter)
        if self._timer is None:
            self._timer = self._node.create_timer(
                LOOK_PERIOD, self._look_at_cameras, self._group, clock=self._steady
            )
        await waiter.over
        if waiter.gave_way:
            raise Busy("gave way to others' requests while it waited for a frame: ask again later")

    def make_room(self) -> None:
        """One request that waits for a frame gives way to one that has its picture."""
        self._give_way(None)

    def look(self) -> None:
        """Ask everybody who waits: something else than a frame has changed, such as a request's cancel."""
        for waiter in [waiter for waiter in self._waiting if waiter.ready()]:
            self._end(waiter)

    def _look_at_cameras(self) -> None:
        """Let those go on whose frame has come, or whose wait is over."""
        cameras = {camera for waiter in self._waiting for camera in waiter.cameras}
        for camera in cameras:
            camera.refresh()
        taken = {camera: camera.counters.taken for camera in cameras}
        new = {camera for camera in cameras if taken[camera] != self._taken.get(camera)}
        self._taken = taken
        now = monotonic()
        for waiter in list(self._waiting):
            if (now >= waiter.end or not new.isdisjoint(waiter.cameras)) and waiter.ready():
                self._end(waiter)

    def _give_way(self, source: str | None) -> bool:
        """Whether somebody gave way to a request of this source; to None anybody does."""
        held = Counter(waiter.source for waiter in self._waiting)
        fewest = 0 if source is None else held[source] + 2
        greedy = [waiter for waiter in self._waiting if held[waiter.source] >= fewest]
        if not greedy:
            return False
        newest = max(reversed(greedy), key=lambda waiter: held[waiter.source])
        newest.gave_way = True
        self._end(newest)
        return True

    def _end(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        waiter.over.set_result(None)
        if not self._waiting and self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
