# SPDX-License-Identifier: Apache-2.0
"""The node's clock beside real time, and what both say about a picture."""

from __future__ import annotations

import time
from dataclasses import replace

from rclpy.node import Node

from mobilevlm_ros.nodes.cameras.clock_trouble import ClockFacts, clock_trouble
from mobilevlm_ros.nodes.cameras.freshness import Age, ClockWatch
from mobilevlm_ros.nodes.cameras.image_buffer import StampedImage


class Clocks:
    """Not thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._clock = node.get_clock()
        self._watch = ClockWatch()
        self._publishers = 0  # of /clock

    @property
    def simulated(self) -> bool:
        """Whether the node takes its time from /clock."""
        return bool(getattr(self._clock, "ros_time_is_active", False))

    def now_ns(self) -> int:
        """Nanoseconds of the node's clock."""
        now = int(self._clock.now().nanoseconds)
        self._watch.observe(now, time.monotonic())
        return now

    def refresh(self) -> None:
        """Look who publishes /clock."""
        self.now_ns()
        self._publishers = int(self._node.count_publishers("/clock")) if self.simulated else 0

    def age(self, kept: StampedImage, at_ns: int | None = None) -> Age:
        """Of a picture, at an instant of the node's clock (nanoseconds; None = now)."""
        now = self.now_ns()
        at = now if at_ns is None else at_ns
        rate = self._watch.rate if self.simulated else 1.0
        steady = time.monotonic() - (now - at) * 1e-9 / rate
        by_stamp = (at - kept.stamp_ns) * 1e-9 if kept.stamped and now else None
        return Age(by_stamp, steady - kept.arrived, rate)

    def trouble(self, kept: StampedImage | None, still_for: float, max_age: float) -> str:
        """What is wrong between a camera's clock and the node's; empty where nothing is.

        Args:
            kept: the newest picture; None before the first.
            still_for: seconds over which pictures came with its stamp.
            max_age: of pictures, seconds; negative = any.
        """
        facts = ClockFacts(
            simulated=self.simulated,
            clock_publishers=self._publishers,
            now_ns=self.now_ns(),
            still_for=self._watch.still_for(time.monotonic()),
        )
        if kept is not None:
            facts = replace(
                facts,
                stamp_ns=kept.stamp_ns if kept.stamped else 0,
                age=self.age(kept),
                stamps_still_for=still_for,
                latched=kept.latched,
            )
        return clock_trouble(facts, max_age)
