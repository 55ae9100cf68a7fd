# SPDX-License-Identifier: Apache-2.0
"""A camera that looks at a simulated scene (or at a photograph): the same topics as a real one.

Publishes `image` and `image/compressed`, each only while somebody listens, and `~/scene`: what is needed to
compute the truth about any of its images.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_file import read_picture
from mobilevlm_ros.ros import spin as running
from mobilevlm_ros.ros.images.messages import JPEG_QUALITY, image_message, jpeg_message
from mobilevlm_ros.ros.resources import profile_environment
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sequence import SceneSequence

U8 = NDArray[np.uint8]
SCENE_SIZE = (640, 480)


class CameraNode(Node):
    """Parameters are read once, at the start.

    Time in the scene is the stamp of an image minus the start that `~/scene` tells, both in nanoseconds of
    the node's clock, so whoever knows seed and stamp can render the very same picture and its truth.
    """

    def __init__(self, name: str = "camera") -> None:
        super().__init__(name)
        seed = self._parameter("seed", 0, "Seed of the scene.", IntegerRange(from_value=0, to_value=2**31))
        rate = self._parameter(
            "rate", 30.0, "Images per second.", FloatingPointRange(from_value=0.1, to_value=240.0)
        )
        scene_seconds = self._parameter(
            "scene_seconds",
            0.0,
            "Seconds until the scene of the next seed comes; 0 = never.",
            FloatingPointRange(from_value=0.0, to_value=86400.0),
        )
        side = IntegerRange(from_value=0, to_value=8192)
        width = self._parameter("width", 0, "Pixels; 0 = 640, or the photo's.", side)
        height = self._parameter("height", 0, "Pixels; 0 = 480, or the photo's.", side)
        photo = self._parameter("photo", "", "Photograph to publish instead of a scene (path of a file).")
        self._frame_id = self._parameter("frame_id", "camera_optical_frame", "Frame of the images (REP-103).")
        quality = IntegerRange(from_value=1, to_value=100)
        self._quality = self._parameter("jpeg_quality", JPEG_QUALITY, "Of image/compressed.", quality)
        self._photo = _read_photo(photo, width, height) if photo else None
        self._size = (width or SCENE_SIZE[0], height or SCENE_SIZE[1])
        self._journey = SceneSequence(seed, scene_seconds)
        self._start_ns = self.get_clock().now().nanoseconds
        # Reliable publishers also serve best-effort subscribers, but not the other way round.
        self._raw = self.create_publisher(Image, "image", 2)
        self._compressed = self.create_publisher(CompressedImage, "image/compressed", 2)
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._about = self.create_publisher(String, "~/scene", latched)
        self._about.publish(String(data=json.dumps(self._description(seed, photo))))
        self.create_timer(1.0 / rate, self._publish)
        self.get_logger().info(f"publishing {photo or f'the scene of seed {seed}'} at {rate:g} Hz")

    def _parameter(self, name: str, default: Any, description: str, bounds: Any = None) -> Any:
        descriptor = ParameterDescriptor(description=description, read_only=True)
        if isinstance(bounds, IntegerRange):
            descriptor.integer_range = [bounds]
        elif isinstance(bounds, FloatingPointRange):
            descriptor.floating_point_range = [bounds]
        return self.declare_parameter(name, default, descriptor).value

    def _description(self, seed: int, photo: str) -> dict[str, Any]:
        width, height = self._size if self._photo is None else self._photo.shape[1::-1]
        return {
            "seed": seed,
            "scene_seconds": self._journey.scene_seconds,
            "start_ns": self._start_ns,
            "photo": photo,
            "width": width,
            "height": height,
        }

    def _publish(self) -> None:
        raw = self._raw.get_subscription_count() > 0
        compressed = self._compressed.get_subscription_count() > 0
        if not raw and not compressed:
            return
        now = self.get_clock().now()
        rgb = self._picture((now.nanoseconds - self._start_ns) * 1e-9)
        header = Header(stamp=now.to_msg(), frame_id=self._frame_id)
        if raw:
            self._raw.publish(image_message(rgb, header))
        if compressed:
            self._compressed.publish(jpeg_message(rgb, header, self._quality))

    def _picture(self, seconds: float) -> U8:
        if self._photo is not None:
            return self._photo
        return observe(*self._journey.at(seconds), *self._size).image


def _read_photo(path: str, width: int, height: int) -> U8:
    """RGB u8[H, W, 3] of a picture file, resized where a width or height is given. Raises ImageError."""
    try:
        rgb = read_picture(path)
    except ImageError as error:
        raise ImageError(f"photo: {error}") from error
    if width or height:
        size = (width or rgb.shape[1], height or rgb.shape[0])
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return rgb


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `camera_node`. Its raw images need room in shared memory; a profile that
    the environment names stays."""
    os.environ.update(profile_environment(os.environ))
    return running.run(CameraNode, args)


if __name__ == "__main__":
    sys.exit(main())
