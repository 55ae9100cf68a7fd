# SPDX-License-Identifier: Apache-2.0
"""Captions of a running node as JSON lines: one object for each, appended to a file.

ros2 run mobilevlm_ros mobilevlm_node          # in another terminal, with a camera on /image
python examples/captions_to_jsonl.py --ros-args -p output:=captions.jsonl
tail -f captions.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path

import rclpy
from mobilevlm_msgs.msg import Caption
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.task import Future

from mobilevlm_ros.client import as_dict


class CaptionWriter(Node):
    """Appends every caption to a file. The node makes captions only while somebody subscribes.

    Attributes:
        done: completes after `count` captions (0: never).
    """

    def __init__(self) -> None:
        super().__init__("caption_writer")
        path = Path(self.declare_parameter("output", "captions.jsonl").value)
        self._left = self.declare_parameter("count", 0).value
        self.done: Future = Future()
        self._file = path.open("a", encoding="utf-8")
        self._subscription = self.create_subscription(Caption, "mobilevlm/captions", self._on_caption, 10)

    def _on_caption(self, caption: Caption) -> None:
        if self.done.done():
            return
        self._file.write(json.dumps(as_dict(caption), ensure_ascii=False) + "\n")
        self._file.flush()
        self._left -= 1
        if self._left == 0:
            self.done.set_result(True)

    def destroy_node(self) -> None:
        """Close the file too."""
        self._file.close()
        super().destroy_node()


def main() -> None:
    """Run until there are `count` captions, or Ctrl-C."""
    rclpy.init()
    node = CaptionWriter()
    try:
        rclpy.spin_until_future_complete(node, node.done)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
