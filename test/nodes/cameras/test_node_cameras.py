# SPDX-License-Identifier: Apache-2.0
"""Cameras in this process: clocks that jump, and publishers that cannot be heard."""

from __future__ import annotations

import pytest
from fixtures.cameras import S, World, image, world
from mobilevlm_msgs.msg import Status
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.ros.status import Refused

__all__ = ["world"]


@pytest.mark.parametrize("world", [True], indirect=True)
def test_a_clock_that_is_set_back_forgets_what_was_seen(world: World) -> None:
    """A bag with /clock loops: its last picture is not the newest one of the next round."""
    camera = Camera(world.node, "bag", history_bytes=1000, history_rate=50.0)
    clock = world.node.create_publisher(Clock, "/clock", 1)
    pictures = world.node.create_publisher(Image, "bag/image", 1)

    def at(seconds: int) -> None:
        def told() -> bool:
            now = Clock()
            now.clock.sec = seconds
            clock.publish(now)
            return bool(world.node.get_clock().now().nanoseconds == seconds * 1_000_000_000)

        world.until(told)

    def seen(seconds: int) -> None:
        def taken() -> bool:
            pictures.publish(image(seconds * S))
            camera.refresh()
            return camera.age() is not None

        world.until(taken)

    at(200)
    seen(199)
    assert camera.age() == pytest.approx(1.0)
    assert camera.frame(2.0).stamp_ns == 199_000_000_000
    at(100)
    assert camera.age() is None
    with pytest.raises(Refused) as refused:
        camera.find(199_000_000_000, -1.0)
    assert refused.value.code == Status.NO_FRAME
    seen(99)
    assert camera.frame(2.0).stamp_ns == 99_000_000_000
    camera.close()


def test_the_age_counts_when_the_question_arrived(world: World) -> None:
    """It may wait for its turn longer than max_age."""
    camera = Camera(world.node, "slow")
    pictures = world.node.create_publisher(Image, "slow/image", 1)

    def taken() -> bool:
        pictures.publish(image(1000 * S))
        camera.refresh()
        return camera.age() is not None

    world.until(taken)
    arrival = 1001 * 1_000_000_000
    assert camera.age(arrival) == pytest.approx(1.0)
    assert camera.frame(2.0, arrival).stamp_ns == 1000 * 1_000_000_000
    with pytest.raises(Refused, match="use_sim_time"):
        camera.frame(2.0)
    camera.close()


def test_a_camera_that_nobody_hears_says_what_to_do(world: World) -> None:
    camera = Camera(world.node, "odd", transport="raw", reliable=True)
    camera.refresh()
    assert "nothing publishes /odd/image" in camera.diagnose()
    packed = world.node.create_publisher(CompressedImage, "odd/image/compressed", 1)
    world.until(lambda: camera.publishers)
    assert "only /odd/image/compressed is published" in camera.diagnose()
    best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    raw = world.node.create_publisher(Image, "odd/image", best_effort)
    world.until(lambda: camera.publishers == 2)
    assert "set the parameter reliability to best_effort" in camera.diagnose()
    camera.close()
    patient = Camera(world.node, "odd", transport="raw")
    patient.refresh()
    assert "/odd/image is published, but nothing arrives" in patient.diagnose()
    assert "fastdds.xml" in patient.diagnose()
    with pytest.raises(Refused, match=r"fastdds\.xml"):
        patient.frame(1.0)
    patient.close()
    for publisher in (packed, raw):
        world.node.destroy_publisher(publisher)
