# SPDX-License-Identifier: Apache-2.0
"""The heartbeat by which nav2's lifecycle manager notices that this node has died."""

from __future__ import annotations

import threading
import uuid
from typing import Any

from mobilevlm_msgs.msg import Status
from rclpy.node import Node
from rclpy.qos import QoSProfile

from mobilevlm_ros.ros.status import Refused

TOPIC = "bond"
"""Relative, as nav2's own nodes and its manager have it: /bond unless they run in a namespace."""

TIMEOUT = 4.0
"""Seconds of silence that others are told to take for a death (nav2's own; its manager goes by its
`bond_timeout`).
"""


class Bond:
    """Heartbeats (bond/msg/Status, as bondcpp sends them) on a thread of its own, while the node is active.

    The thread needs no executor: whatever loads or answers, the heart beats. A node that hangs is ended by
    its watchdog, and then it stops. Start and stop belong to the executor's thread.

    Args:
        node: whose name is the bond's id.
        period: seconds between heartbeats; 0 = none.

    Raises:
        Refused: the messages of the package `bond` are not installed.
    """

    def __init__(self, node: Node, period: float) -> None:
        self._node, self._period = node, period
        self._publisher: Any = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._instance = ""
        if not period:
            return
        try:
            from bond.msg import Status as Beat
        except ImportError as error:
            raise Refused(
                Status.NOT_ACTIVE,
                "bond_heartbeat_period asks for a bond, and the messages of the package bond are not here "
                f"({error}): sudo apt install ros-$ROS_DISTRO-bond, or set bond_heartbeat_period to 0",
            ) from error
        self._kind: Any = Beat
        self._publisher = node.create_publisher(Beat, TOPIC, QoSProfile(depth=5))

    def start(self) -> None:
        """Begin to beat: a bond of its own, which nobody takes for the one before."""
        if self._publisher is not None and self._thread is None:
            self._instance = str(uuid.uuid4())
            self._stopping.clear()
            self._thread = threading.Thread(target=self._beat, name="bond", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Tell that the node rests, which is no death; harmless when it does."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None
            self._tell(active=False)

    def close(self) -> None:
        """Stop for good, and remove the topic."""
        self.stop()
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    def _beat(self) -> None:
        while self._tell(active=True) and not self._stopping.wait(self._period):
            pass

    def _tell(self, active: bool) -> bool:
        """Whether it was published; not once the context is shut down."""
        message = self._kind()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.id = self._node.get_name()
        message.instance_id = self._instance
        message.active = active
        message.heartbeat_timeout = TIMEOUT
        message.heartbeat_period = self._period
        try:
            self._publisher.publish(message)
        except Exception:  # of the middleware, while the process ends
            return False
        return True
