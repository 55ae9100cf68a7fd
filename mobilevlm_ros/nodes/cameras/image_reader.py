# SPDX-License-Identifier: Apache-2.0
"""One subscription whose samples stay in the middleware until somebody takes them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
)

from mobilevlm_ros.nodes.cameras.freshness import arrival_time

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

LOSS_WINDOW = 10.0
"""Seconds over which lost samples are set against those that were sent."""


class ManualTakeGroup(CallbackGroup):
    """Keeps a subscription and its events out of the executor.

    The middleware holds the newest sample of a depth-1 subscription for next to nothing, while every sample
    that an executor takes is deserialised in Python (1 to 10 ms for a raw 720p image). We take one when we
    need it. The events likewise: Fast DDS wakes whoever waits for an event of a reader as long as that
    reader holds an untaken sample, so the executor would spin (80 % of a core were seen).
    """

    def can_execute(self, entity: Any) -> bool:  # rclpy has no stubs
        """Never."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing to end."""


@dataclass(frozen=True)
class Sample:
    """A message.

    Attributes:
        arrived: monotonic seconds.
        latched: whether its publisher sent it before this node listened.
    """

    message: Any
    arrived: float
    latched: bool = False


class LossMeter:
    """Which share of the samples got lost on the way, of late. Not thread-safe, no ROS.

    Samples that we pass over on purpose are not lost: they are counted through the publisher's sequence
    numbers where the middleware tells them, else only those that were taken count as sent.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[float, int, int]] = deque()  # monotonic seconds, sent, lost
        self._sequence: int | None = None

    def took(self, at: float, sequence: int | None) -> None:
        """A sample was taken, with this number of its publisher."""
        before, self._sequence = self._sequence, sequence
        sent = 1 if before is None or sequence is None else sequence - before
        self._events.append((at, sent if 0 < sent < 10_000 else 1, 0))

    def lost(self, at: float, count: int) -> None:
        """The middleware reported lost samples."""
        self._events.append((at, 0 if self._sequence is not None else count, count))

    def counts(self, now: float) -> tuple[int, int]:
        """Sent and lost within the last LOSS_WINDOW seconds."""
        while self._events and now - self._events[0][0] > LOSS_WINDOW:
            self._events.popleft()
        lost = sum(event[2] for event in self._events)
        return max(lost, sum(event[1] for event in self._events)), lost


class ImageReader:
    """A subscription of depth 1. Not thread-safe.

    Args:
        kind: sensor_msgs/Image or CompressedImage.
        topic: relative to the node.
        reliable: ask for reliable delivery.
        latched: ask for what was sent before, which only publishers that keep it can serve (it takes
            reliable delivery too).
    """

    def __init__(self, node: Node, kind: type, topic: str, reliable: bool, latched: bool) -> None:
        self._node = node
        self.latched = latched
        self.meter = LossMeter()
        self.lost = self.taken = 0
        self.since = monotonic()  # of the last sample, or when it began to listen
        self._began_ns = time.time_ns()
        self._looked = self.since  # when the queue was seen empty
        qos = QoSProfile(
            history=QoSHistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=_RELIABLE if reliable or latched else QoSReliabilityPolicy.BEST_EFFORT,
            durability=_LATCHED if latched else QoSDurabilityPolicy.VOLATILE,
        )

        def subscribe(events: SubscriptionEventCallbacks | None) -> Any:
            return node.create_subscription(
                kind, topic, _ignore, qos, callback_group=ManualTakeGroup(), event_callbacks=events
            )

        try:
            self._subscription = subscribe(SubscriptionEventCallbacks(message_lost=self._on_lost))
        except UnsupportedEventTypeError:  # by this middleware
            self._subscription = subscribe(None)

    def take(self) -> Iterator[Sample]:
        """What arrived since the last call; at most the newest message, while it goes on listening.

        rclpy has no public call for this; its executors use the same.
        """
        subscription, looking = self._subscription, monotonic()
        with subscription.handle:
            while (
                taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)
            ) is not None:
                yield self._sample(*taken)
        self._looked = looking

    def poll_events(self) -> None:
        """Hear of lost samples. No public call takes an event either."""
        for handler in self._subscription.event_handlers:
            handler._ready_to_take_data = True
            event = handler.take_data()
            if getattr(event, "total_count_change", 0) > 0:
                handler.callback(event)

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._subscription)

    def _sample(self, message: Any, info: Any) -> Sample:
        steady, wall = monotonic(), time.time_ns()
        source = info.get("source_timestamp") or 0
        before = self.latched and 0 < source < self._began_ns
        told = {"source_timestamp": source} if before else info
        arrived = arrival_time(told, -math.inf if before else self._looked, steady, wall)
        self.since = max(self.since, arrived)
        self.taken += 1
        self.meter.took(steady, info.get("publication_sequence_number") or None)
        return Sample(message, arrived, before)

    def _on_lost(self, event: Any) -> None:
        self.lost += event.total_count_change
        self.meter.lost(monotonic(), event.total_count_change)


_RELIABLE = QoSReliabilityPolicy.RELIABLE
_LATCHED = QoSDurabilityPolicy.TRANSIENT_LOCAL


def _ignore(_: Any) -> None:
    """The executor never calls it: see ManualTakeGroup."""
