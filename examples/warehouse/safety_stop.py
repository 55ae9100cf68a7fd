# SPDX-License-Identifier: Apache-2.0
"""A warehouse robot with two cameras: says "stop" while a monitor is raised, or cannot see.

    ros2 run mobilevlm_ros mobilevlm_node --ros-args -p "cameras:=['front', 'rear']" \
        -p monitors_file:=examples/warehouse/monitors.yaml
    python examples/warehouse/safety_stop.py
    ros2 topic echo /stop

This is an example of reading monitors, not a safety device: a vision-language model can be wrong.
"""

from __future__ import annotations

import rclpy
from mobilevlm_msgs.msg import MonitorState
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool

LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""As ~/monitors is published: the latest state of each monitor is there for whoever comes later."""

SILENCE = 5.0
"""Seconds without any word of a monitor after which it counts as unknown."""

_NAMES = {MonitorState.UNKNOWN: "UNKNOWN", MonitorState.CLEAR: "CLEAR", MonitorState.RAISED: "RAISED"}


class SafetyStop(Node):
    """Publishes `stop` (std_msgs/Bool, latched): false only while every monitor is heard of and clear."""

    def __init__(self) -> None:
        super().__init__("safety_stop")
        self._states: dict[tuple[str, str], int] = {}
        self._heard: dict[tuple[str, str], float] = {}
        self._stop: bool | None = None
        self._publisher = self.create_publisher(
            Bool, "stop", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )
        self._subscription = self.create_subscription(
            MonitorState, "mobilevlm/monitors", self._on_state, LATCHED
        )
        self._timer = self.create_timer(0.5, self._decide)
        self._decide()

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _on_state(self, message: MonitorState) -> None:
        key = (message.name, message.camera)
        if self._states.get(key) != message.state:
            why = "" if message.state != MonitorState.UNKNOWN else f": {message.status.message}"
            self.get_logger().info(f"{message.name} [{message.camera}] {_NAMES[message.state]}{why}")
        self._states[key], self._heard[key] = message.state, self._now()
        self._decide()

    def _decide(self) -> None:
        late = self._now() - SILENCE
        clear = [
            state == MonitorState.CLEAR and self._heard[key] > late for key, state in self._states.items()
        ]
        stop = not clear or not all(clear)
        if stop != self._stop:
            self._stop = stop
            self._publisher.publish(Bool(data=stop))
            self.get_logger().info("STOP" if stop else "free to go")


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    node = SafetyStop()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
