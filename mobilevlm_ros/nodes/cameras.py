# SPDX-License-Identifier: Apache-2.0
"""Frames of one camera, taken from the middleware only when somebody needs one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import monotonic
from typing import Any

from mobilevlm_msgs.msg import Status
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.nodes.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.nodes.status import Refused

SILENCE = 3.0
"""Seconds without a frame, from a topic that has publishers, after which the other transport is tried."""

YEAR = 365 * 86400.0


class Unwatched(CallbackGroup):
    """Keeps a subscription out of the executor.

    The middleware holds the newest sample of a depth-1 subscription for next to nothing, while every sample
    that
    an executor takes is deserialised in Python (1 to 10 ms for a raw 720p image). We take one when we need
    it.
    """

    def can_execute(self, entity: Any) -> bool:  # rclpy has no stubs
        """Never."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing to end."""


@dataclass
class Counters:
    """Since the node was configured."""

    taken: int = 0
    invalid: int = 0
    stale: int = 0


class Camera:
    """One configured camera. `frame` may be called from any thread, everything else from the executor's.

    Args:
        node: gives the clock, the graph and the subscriptions.
        name: as configured; the topics are <name>/image and <name>/image/compressed, relative to the node.
        transport: 'raw', 'compressed' or 'auto'.
        reliable: ask for reliable delivery.
    """

    def __init__(self, node: Node, name: str, transport: str = "auto", reliable: bool = False) -> None:
        self.name = name
        self.counters = Counters()
        self._node = node
        raw = f"{name}/image" if name else "image"
        self._topics = {"raw": raw, "compressed": f"{raw}/compressed"}
        self._transport = transport
        reliability = QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
        self._qos = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=reliability)
        self._group = Unwatched()
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None
        self._kind = ""
        self._silent = {"raw": False, "compressed": False}
        self._since = 0.0  # monotonic: last frame, or subscription
        self._message: Any = None
        self._stamp_ns = 0
        self._frame: Frame | None = None

    @property
    def topic(self) -> str:
        """Resolved name of the topic it listens to; the raw one before it found any publisher."""
        return str(self._node.resolve_topic_name(self._topics[self._kind or "raw"]))

    @property
    def label(self) -> str:
        """Name for sentences."""
        return f"camera {self.name!r}" if self.name else "the camera"

    @property
    def publishers(self) -> int:
        """Publishers on its topics now, both transports together."""
        return sum(self._count(kind) for kind in self._topics)

    def refresh(self) -> None:
        """Take what arrived, and listen where something is published."""
        with self._lock:
            self._take()
            kind = self._choose()
            if kind != self._kind or self._subscription is None:
                self._listen(kind)

    def close(self) -> None:
        """Stop listening; the last frame is forgotten."""
        with self._lock:
            self._unsubscribe()
            self._message = self._frame = None

    def age(self) -> float | None:
        """Seconds from the stamp of the newest frame that was taken to now; None before the first."""
        with self._lock:
            return None if self._message is None else self._age()

    def frame(self, max_age: float) -> Frame:
        """The newest frame, converted.

        Args:
            max_age: oldest allowed, seconds of the node's clock; negative = any.

        Raises:
            Refused: NO_FRAME or STALE_FRAME.
            ImageError: the message cannot be decoded.
        """
        with self._lock:
            self._take()
            if self._message is None:
                raise Refused(Status.NO_FRAME, self._no_frame())
            age = self._age()
            if 0 <= max_age < age:
                self.counters.stale += 1
                raise Refused(Status.STALE_FRAME, self._stale(age, max_age))
            if self._frame is not None:
                return self._frame
            message = self._message
        frame = self._convert(message)  # without the lock: a large picture must not hold up the executor
        with self._lock:
            if self._message is message:
                self._frame = frame
        return frame

    def _convert(self, message: Any) -> Frame:
        try:
            rgb = image_to_rgb(message) if isinstance(message, Image) else compressed_to_rgb(message)
        except ImageError as error:
            self.counters.invalid += 1
            raise ImageError(f"{self.topic}: {error}") from error
        stamp = message.header.stamp
        return Frame(rgb, stamp.sec * 1_000_000_000 + stamp.nanosec, message.header.frame_id, self.name)

    def _take(self) -> None:
        """Take the newest sample, if there is one. rclpy has no public call for this; the executors use the
        same.
        """
        subscription = self._subscription
        if subscription is None:
            return
        with subscription.handle:
            while True:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is None:
                    return
                self._message, self._frame = taken[0], None
                stamp = self._message.header.stamp
                # A publisher that fills no stamps gets the time of arrival, as near as we know it.
                self._stamp_ns = (
                    stamp.sec * 1_000_000_000 + stamp.nanosec or self._node.get_clock().now().nanoseconds
                )
                self._since = monotonic()
                self._silent[self._kind] = False
                self.counters.taken += 1

    def _age(self) -> float:
        return float(self._node.get_clock().now().nanoseconds - self._stamp_ns) * 1e-9

    def _choose(self) -> str:
        if self._transport != "auto":
            return self._transport
        published = {kind: self._count(kind) > 0 for kind in self._topics}
        if self._kind and published[self._kind] and monotonic() - self._since > SILENCE:
            other = "compressed" if self._kind == "raw" else "raw"
            if published[other] and not self._silent[other]:
                self._silent[self._kind] = True
                self._node.get_logger().warning(
                    f"nothing arrives on {self.topic} although it is published (large raw images need a DDS "
                    f"profile, see config/fastdds.xml): listening to {self._topics[other]}"
                )
        for kind in ("raw", "compressed"):
            if published[kind] and not self._silent[kind]:
                return kind
        return self._kind or "raw"

    def _listen(self, kind: str) -> None:
        self._unsubscribe()
        self._kind, self._since = kind, monotonic()
        message_type = Image if kind == "raw" else CompressedImage
        self._subscription = self._node.create_subscription(
            message_type, self._topics[kind], _ignore, self._qos, callback_group=self._group
        )

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _count(self, kind: str) -> int:
        return int(self._node.count_publishers(self._node.resolve_topic_name(self._topics[kind])))

    def _no_frame(self) -> str:
        topics = " and ".join(str(self._node.resolve_topic_name(topic)) for topic in self._topics.values())
        if not self.publishers:
            return (
                f"{self.label} has delivered no image: nothing publishes {topics}; start it, or remap the "
                "topics"
            )
        return (
            f"{self.label} has delivered no image yet although {self.topic} is published: wait a moment; if "
            "it stays so, check its QoS, or publish image/compressed"
        )

    def _stale(self, age: float, max_age: float) -> str:
        text = f"the newest image of {self.label} is {age:.2f} s old, older than max_age {max_age:.2f} s: "
        if age > YEAR:
            return (
                text + "its stamps are in another clock than the node's; set use_sim_time on both or on none"
            )
        return text + "check that the camera still publishes, or allow a larger max_age"


def _ignore(_: Any) -> None:
    """The executor never calls it: see Unwatched."""


def to_time_message(stamp_ns: int) -> Any:
    """builtin_interfaces/Time of nanoseconds."""
    return Time(nanoseconds=stamp_ns).to_msg()
