# SPDX-License-Identifier: Apache-2.0
"""An entry point of hostile.py: serialised ROS messages, changed byte by byte, to cameras of a live node."""

from __future__ import annotations

import os
import random
from functools import cache
from time import monotonic
from typing import Any

import numpy as np
from hostile_files import NANO
from hostile_mutations import changed_bytes

ARRIVAL = 0.02
"""Seconds in which a message of this process arrives; one that the middleware cannot read never does."""

ASKED_EACH = 100
"""Cases of which one is followed by a question with a picture of its own, which must be answered."""

CDR = 4
"""Bytes before the message that tell its encoding (OMG DDSI-RTPS 10.2)."""


class Live:
    """A node of two cameras, and publishers of what they should hear."""

    def __init__(self) -> None:
        from mobilevlm_ros.ros.resources import private_environment

        os.environ.update(private_environment(dict(os.environ)))
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import Header

        from mobilevlm_ros.nodes.mobilevlm_node import MobileVLMNode
        from mobilevlm_ros.ros.images.messages import image_message

        told = {"bundle": NANO / "bundle", "threads": 1, "cameras": "['raw', 'small']", "caption_rate": 0.0}
        values = [word for key, value in told.items() for word in ("-p", f"{key}:={value}")]
        rclpy.init(args=["--ros-args", "-r", "__ns:=/hostile", "--log-level", "fatal", *values])
        self.node = MobileVLMNode("hostile")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        sender = rclpy.create_node("sender")
        picture = image_message(np.full((6, 8, 3), 90, np.uint8), Header())
        small = CompressedImage(format="jpeg", data=_jpeg())
        self._senders = {
            "raw": (sender.create_publisher(Image, "/hostile/raw/image", 1), serialize_message(picture)),
            "small": (
                sender.create_publisher(CompressedImage, "/hostile/small/image/compressed", 1),
                serialize_message(small),
            ),
        }
        self._own = picture
        end = monotonic() + 60
        while not all(sent.get_subscription_count() for sent, _ in self._senders.values()):
            assert monotonic() < end, self.node.node_state.status.message or "the node does not listen"
            self.executor.spin_once(timeout_sec=0.1)

    def hear(self, name: str, rng: random.Random) -> object:
        """Send a changed message and look at the camera's newest picture; raises what the node raises."""
        sender, whole = self._senders[name]
        head = whole[:CDR] if rng.random() < 0.9 else b""
        sender.publish(head + changed_bytes(whole[len(head) :], rng))
        camera = self.node.node_state.cameras[name]
        taken, end = camera.counters.taken, monotonic() + ARRIVAL
        while camera.counters.taken == taken and monotonic() < end:
            self.executor.spin_once(timeout_sec=0.001)
            camera.refresh()
        return camera.frame(-1.0)

    def ask(self) -> Any:
        """The status of a question about a picture that it carries."""
        from mobilevlm_msgs.srv import AskImage

        request = AskImage.Request(question="Is it?", choices=["yes", "no"], image=self._own)
        response = AskImage.Response()
        task = self.executor.create_task(self.node.ask_server._on_request(request, response))
        end = monotonic() + 60
        while not task.done():
            assert monotonic() < end, "a question got no answer"
            self.executor.spin_once(timeout_sec=0.05)
        return response.status


@cache
def _live() -> Live:
    return Live()


def _jpeg() -> bytes:
    import cv2

    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1])


def ros_messages(rng: random.Random) -> object:
    """Feed a camera of the node of this process once."""
    live = _live()
    try:
        return live.hear(rng.choice(("raw", "small")), rng)
    finally:
        assert live.node.callback_faults == 0
        if rng.randrange(ASKED_EACH) == 0:
            status = live.ask()
            assert status.code == 1, status.message
