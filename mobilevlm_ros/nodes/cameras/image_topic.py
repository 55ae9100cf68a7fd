# SPDX-License-Identifier: Apache-2.0
"""The topic of one camera, raw or compressed: samples stay in the middleware until somebody takes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.nodes.cameras.freshness import arrival_time

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

SILENCE = 3.0
"""Seconds without a frame, from a topic that has publishers, after which the other transport is tried."""

LARGE_IMAGES = (
    "large raw images get lost with the middleware's small buffers: publish image/compressed too, or start "
    "the camera AND this node with the DDS profile config/fastdds.xml (it says how)"
)


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


class ImageTopic:
    """Listens to <name>/image or <name>/image/compressed, wherever something is published and arrives.

    Not thread-safe.

    Args:
        node: gives the graph and the subscription.
        name: of the camera; the topics are relative to the node.
        transport: 'raw', 'compressed' or 'auto'.
        reliable: ask for reliable delivery.
    """

    def __init__(self, node: Node, name: str, transport: str, reliable: bool) -> None:
        self._node = node
        raw = f"{name}/image" if name else "image"
        self._names = {
            kind: str(node.resolve_topic_name(topic))
            for kind, topic in (("raw", raw), ("compressed", f"{raw}/compressed"))
        }
        self._relative = {"raw": raw, "compressed": f"{raw}/compressed"}
        self._transport = transport
        self._reliable = reliable
        reliability = QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
        self._qos = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=reliability)
        self._group = ManualTakeGroup()
        self._subscription: Subscription | None = None
        self._kind = ""
        self._silent = {"raw": False, "compressed": False}
        self._since = 0.0  # monotonic: last sample, or subscription
        self._looked = 0.0  # monotonic: when the queue was seen empty
        self.offered = 0  # publishers on the topic it listens to, at the last look
        self.lost = 0  # samples that the middleware reports as lost on the way

    @property
    def name(self) -> str:
        """Resolved name of the topic it listens to; the raw one before it found any publisher."""
        return self._names[self._kind or "raw"]

    @property
    def names(self) -> tuple[str, ...]:
        """Resolved names of both topics."""
        return tuple(self._names.values())

    @property
    def publishers(self) -> int:
        """Publishers now, on both topics together."""
        return sum(self._count(kind) for kind in self._names)

    @property
    def silent_for(self) -> float:
        """Seconds since the last sample, or since it listens."""
        return monotonic() - self._since

    def take(self) -> Iterator[Sample]:
        """What arrived since the last call; at most the newest message, while it goes on listening.

        rclpy has no public call for this; its executors use the same.
        """
        subscription = self._subscription
        if subscription is None:
            return
        looking = monotonic()
        with subscription.handle:
            while (
                taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)
            ) is not None:
                arrived = arrival_time(taken[1], self._looked, monotonic(), time.time_ns())
                self._since = max(self._since, arrived)
                self._silent[self._kind] = False
                yield Sample(taken[0], arrived)
        self._looked = looking

    def follow(self) -> None:
        """Listen to the topic where something is published; to the other one when nothing arrives."""
        self._poll_events()
        kind = self._choose()
        self.offered = self._count(kind)
        if kind != self._kind or self._subscription is None:
            self.close()
            self._kind = kind
            self._since = self._looked = monotonic()
            try:
                self._subscription = self._subscribe(SubscriptionEventCallbacks(message_lost=self._on_lost))
            except UnsupportedEventTypeError:  # by this middleware
                self._subscription = self._subscribe(None)

    def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def silence(self) -> str:
        """Why nothing more arrives; empty where something came a moment ago."""
        if not self.publishers:
            return self.diagnose()
        if self.silent_for <= 1.0:
            return ""
        return f"{self.name} is published, but sent nothing for {self.silent_for:.1f} s: check the camera"

    def diagnose(self) -> str:
        """Why nothing arrives, and what to do about it."""
        if not self.publishers:
            return f"nothing publishes {' or '.join(self.names)}: start the camera, or remap the topics"
        lost = f" ({self.lost} images were lost on the way)" if self.lost else ""
        published = f"{self.name} is published, but nothing arrives{lost}: "
        if not self._count(self._kind or "raw"):
            other = next(name for name in self.names if name != self.name)
            return f"only {other} is published: set the parameter transport to auto, or publish {self.name}"
        if self._reliable and self._best_effort():
            return published + "its publisher is best effort; set the parameter reliability to best_effort"
        if self._kind == "compressed":
            return published + "wait a moment; if it stays so, check the camera's driver and the network"
        return published + ("" if self.lost else "wait a moment; if it stays so, ") + LARGE_IMAGES

    def rivals(self, mixed: bool) -> str:
        """Who publishes where only one should; empty where at most one does.

        Args:
            mixed: whether stamps of several clocks were seen.
        """
        infos = self._node.get_publishers_info_by_topic(self.name)
        if len(infos) < 2 and not mixed:
            return ""
        names = sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos})
        who = f"{len(infos)} publishers send to {self.name} ({', '.join(names[:4])})"
        if len(infos) < 2:
            who = f"the stamps on {self.name} come from several clocks"
        return f"{who}, so its images may be of different cameras: give each camera a topic of its own"

    def _subscribe(self, events: SubscriptionEventCallbacks | None) -> Subscription:
        return self._node.create_subscription(
            Image if self._kind == "raw" else CompressedImage,
            self._relative[self._kind],
            _ignore,
            self._qos,
            callback_group=self._group,
            event_callbacks=events,
        )

    def _poll_events(self) -> None:
        """Hear of lost samples and of publishers with another QoS. No public call takes an event either."""
        for handler in () if self._subscription is None else self._subscription.event_handlers:
            handler._ready_to_take_data = True
            event = handler.take_data()
            if getattr(event, "total_count_change", 0) > 0:
                handler.callback(event)

    def _on_lost(self, event: Any) -> None:
        self.lost += event.total_count_change

    def _best_effort(self) -> bool:
        """Whether no publisher offers the reliable delivery that we ask for."""
        offers = [info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(self.name)]
        return bool(offers) and QoSReliabilityPolicy.RELIABLE not in offers

    def _choose(self) -> str:
        if self._transport != "auto":
            return self._transport
        published = {kind: self._count(kind) > 0 for kind in self._names}
        if self._kind and published[self._kind] and self.silent_for > SILENCE:
            other = "compressed" if self._kind == "raw" else "raw"
            if published[other] and not self._silent[other]:
                self._silent[self._kind] = True
                self._node.get_logger().warning(f"{self.diagnose()}. Now listening to {self._names[other]}")
        for kind in ("raw", "compressed"):
            if published[kind] and not self._silent[kind]:
                return kind
        return self._kind or "raw"

    def _count(self, kind: str) -> int:
        return int(self._node.count_publishers(self._names[kind]))


def _ignore(_: Any) -> None:
    """The executor never calls it: see Unwatched."""
