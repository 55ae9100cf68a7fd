# SPDX-License-Identifier: Apache-2.0
"""Topics as they are found: of another type, latched, lossy, silent. Over DDS, in this process."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import cv2
import numpy as np
import pytest
from fixtures.cameras import S, World, image, wall, world
from mobilevlm_msgs.msg import Status
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobilevlm_ros.nodes.cameras import image_reader, image_topic
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.cameras.image_reader import LossMeter
from mobilevlm_ros.ros.stamps import to_message
from mobilevlm_ros.ros.status import Refused

__all__ = ["world"]
LATCHED = QoSProfile(
    depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL, reliability=QoSReliabilityPolicy.RELIABLE
)


def jpeg() -> CompressedImage:
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    made = CompressedImage(format="jpeg", data=data)
    made.header.stamp = to_message(wall())
    return made


@pytest.mark.parametrize(
    ("make", "topic", "said"),
    [
        (jpeg, "odd/image", "remap image/compressed:=/odd/image instead of image"),
        (String, "odd/image", "carries std_msgs/msg/String (from /cameras)"),
        (lambda: image(wall()), "odd/image/compressed", "remap image:=/odd/image/compressed"),
    ],
)
def test_another_type_is_named(world: World, make: Callable[[], object], topic: str, said: str) -> None:
    camera = Camera(world.node, "odd")
    sender = World(False)  # one participant of DDS knows a topic by one type only
    publisher = sender.node.create_publisher(type(make()), topic, 1)

    def show() -> None:
        publisher.publish(make())
        camera.refresh()

    world.until(lambda: said in camera.problem(1.0), show)
    with pytest.raises(Refused) as refused:
        camera.frame(1.0)
    assert refused.value.code == Status.NO_FRAME and said in str(refused.value)
    camera.close()
    sender.close()


@pytest.mark.parametrize("stamped", [True, False])
def test_a_picture_from_before_is_received_and_known_to_be_old(world: World, stamped: bool) -> None:
    publisher = world.node.create_publisher(Image, "map/image", LATCHED)
    publisher.publish(image(wall() if stamped else 0))
    start = wall()
    world.until(lambda: wall() - start > S // 2)
    camera = Camera(world.node, "map")
    world.until(lambda: camera.age() is not None, camera.refresh)
    assert camera.frame(-1.0).image.shape == (2, 2, 3)
    age = camera.age()
    assert age is not None and age > 0.4
    with pytest.raises(Refused) as refused:
        camera.frame(0.3)
    assert refused.value.code == Status.STALE_FRAME
    publisher.publish(image(wall()))
    again = lambda: (publisher.publish(image(wall())), camera.refresh())  # noqa: E731
    world.until(lambda: (camera.age() or 9.0) < 0.3, again)
    camera.close()


def test_auto_leaves_a_topic_that_falls_silent_and_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_topic, "PROBE_AFTER", 0.1)
    monkeypatch.setattr(image_topic, "PROBE_SECONDS", 0.3)
    world.node.declare_parameter("max_age", 0.2)  # a second of silence is too long then
    camera = Camera(world.node, "both")
    raw = world.node.create_publisher(Image, "both/image", 1)
    packed = world.node.create_publisher(CompressedImage, "both/image/compressed", 1)
    sending = {"raw": True}

    def show() -> None:
        if sending["raw"]:
            raw.publish(image(wall()))
        packed.publish(jpeg())
        camera.refresh()

    def listens_to(topic: str) -> bool:
        return camera.topic == topic and (camera.age() or 9.0) < 0.2

    world.until(lambda: listens_to("/both/image"), show)
    sending["raw"] = False
    world.until(lambda: listens_to("/both/image/compressed"), show)
    world.until(lambda: camera.frame(-1.0).image.shape == (8, 8, 3), show)
    sending["raw"] = True
    world.until(lambda: listens_to("/both/image"), show)
    world.until(lambda: camera.frame(-1.0).image.shape == (2, 2, 3), show)
    camera.close()


def test_auto_leaves_a_lossy_topic(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The middleware's report of lost samples is what counts, here given by hand."""
    meters: list[LossMeter] = []

    class Meter(LossMeter):
        def __init__(self) -> None:
            super().__init__()
            meters.append(self)

    monkeypatch.setattr(image_reader, "LossMeter", Meter)
    camera = Camera(world.node, "lossy")
    raw = world.node.create_publisher(Image, "lossy/image", 1)
    packed = world.node.create_publisher(CompressedImage, "lossy/image/compressed", 1)

    def show() -> None:
        raw.publish(image(wall()))
        packed.publish(jpeg())
        camera.refresh()

    world.until(lambda: camera.topic == "/lossy/image" and camera.age() is not None, show)
    for _ in range(3):
        show()
    meter = meters[-1]  # of the reader at work
    meter.lost(monotonic(), 1)
    show()
    assert camera.topic == "/lossy/image"  # one lost picture is nothing
    meter.lost(monotonic(), 400)
    world.until(lambda: camera.topic == "/lossy/image/compressed", show)
    camera.close()
