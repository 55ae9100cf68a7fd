# SPDX-License-Identifier: Apache-2.0
"""Where the robot is, from a topic that says so."""

from __future__ import annotations

import threading
from importlib import import_module
from time import monotonic
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy

from mobilevlm_ros.memory.record import Position
from mobilevlm_ros.memory.track import Track, position_of

TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
"""That say where the robot is, with the frame in their header."""

CLOSEST = 50_000_000
"""Nanoseconds between the positions that are kept; robots tell up to 1 000 in a second."""

MOST = 2400
"""Positions that are kept: two minutes. A question may have to wait for its answer."""

JUMP = 1_000_000_000
"""Nanoseconds by which stamps may step back; further back is another run of time."""

_LOOK_PERIOD = 1.0
_QOS = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)


class Odometry:
    """Keeps the robot's last positions. `at` may be called from any thread, the rest on the executor's.

    The type of the topic is that of its first publisher, so nothing has to be said about it.

    Args:
        node: that listens.
        topic: of one of TYPES; relative names and remappings work as usual.

    Attributes:
        topic: its whole name.
        trouble: why no positions come, as a sentence; empty where they do.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self._track = Track(MOST)
        self._lock = threading.Lock()
        self._newest_ns = 0
        self._subscription: Any = None
        self._looked = -_LOOK_PERIOD
        self.topic = node.resolve_topic_name(topic)
        self.trouble = f"nothing is published on {self.topic} (memory.odometry)"

    def look(self) -> None:
        """Listen as soon as somebody publishes; call it often (it looks once a second)."""
        if self._subscription is not None or monotonic() - self._looked < _LOOK_PERIOD:
            return
        self._looked = monotonic()
        kinds = sorted({info.topic_type for info in self._node.get_publishers_info_by_topic(self.topic)})
        if not kinds:
            return
        kind = next((kind for kind in kinds if kind in TYPES), None)
        if kind is None:
            self.trouble = (
                f"{self.topic} is of type {kinds[0]} (memory.odometry): name one of {', '.join(TYPES)}"
            )
            return
        package, _, name = kind.split("/")
        try:
            message_type = getattr(import_module(f"{package}.msg"), name)
        except ImportError as error:
            self.trouble = f"{self.topic} (memory.odometry) needs the ROS package {package}: {error}"
            return
        self._subscription = self._node.create_subscription(message_type, self.topic, self._take, _QOS)
        self.trouble = ""

    def close(self) -> None:
        """Listen no longer."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def at(self, time_ns: int) -> Position | None:
        """Where the robot was at a time (nanoseconds); None where that is not known within half a second."""
        with self._lock:
            return self._track.at(time_ns)

    def _take(self, message: Any) -> None:
        stamp = message.header.stamp
        time_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
        time_ns = time_ns or int(self._node.get_clock().now().nanoseconds)
        if 0 <= time_ns - self._newest_ns < CLOSEST:
            return
        position = position_of(message)
        if position is None:
            return
        with self._lock:
            if time_ns < self._newest_ns - JUMP:
                self._track.clear()
                self._newest_ns = 0
            self._newest_ns = max(self._newest_ns, time_ns)
            self._track.add(time_ns, position)
