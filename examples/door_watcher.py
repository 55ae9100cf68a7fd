# SPDX-License-Identifier: Apache-2.0
"""A node of your own: asks every 2 seconds, and stops when the answer is "no".

ros2 run mobilevlm_ros mobilevlm_node          # in another terminal, with a camera on /image
python examples/door_watcher.py --ros-args -p question:="Is the door open?"
"""

from __future__ import annotations

import rclpy
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.task import Future

PATIENCE = 5.0
"""Seconds after which a request without a response is given up and asked again."""


class DoorWatcher(Node):
    """Asks a yes-or-no question again and again.

    Attributes:
        done: completes with the answer "no".
    """

    def __init__(self) -> None:
        super().__init__("door_watcher")
        self.question = self.declare_parameter("question", "Is the door open?").value
        period = self.declare_parameter("period", 2.0).value
        self.done: Future = Future()
        self._client = self.create_client(AskImage, "ask_image")
        self._asked: Future | None = None
        self._since = self.get_clock().now()
        self._timer = self.create_timer(period, self._ask)

    def _ask(self) -> None:
        now = self.get_clock().now()
        if not self._client.service_is_ready():
            self.get_logger().info("waiting for mobilevlm_node", throttle_duration_sec=5.0)
            return
        if self._asked is not None:
            if (now - self._since).nanoseconds < PATIENCE * 1e9:
                return  # one question at a time
            self._client.remove_pending_request(self._asked)
        request = AskImage.Request(question=self.question, choices=["yes", "no"], timeout=PATIENCE)
        self._since, self._asked = now, self._client.call_async(request)
        self._asked.add_done_callback(self._on_response)

    def _on_response(self, asked: Future) -> None:
        self._asked = None
        response = asked.result()
        if response.status.code != Status.OK:  # no frame yet, a stale one, busy: the next turn may do better
            self.get_logger().warning(response.status.message)
            return
        self.get_logger().info(f"{self.question} {response.answer} ({response.confidence:.2f})")
        if response.answer == "no" and not self.done.done():
            self.done.set_result(response.answer)


def main() -> None:
    """Run until the answer is "no", or Ctrl-C."""
    rclpy.init()
    node = DoorWatcher()
    try:
        rclpy.spin_until_future_complete(node, node.done)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
