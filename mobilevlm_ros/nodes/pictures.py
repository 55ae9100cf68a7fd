# SPDX-License-Identifier: Apache-2.0
"""From frames to image messages."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.nodes.responses import header_of

JPEG_QUALITY = 90


def image_message(frame: Frame, rgb: NDArray[np.uint8]) -> Image:
    """sensor_msgs/Image (rgb8) of u8[H, W, 3] with a frame's header."""
    height, width = rgb.shape[:2]
    message = Image(header=header_of(frame), height=height, width=width, encoding="rgb8", step=width * 3)
    message.data = np.ascontiguousarray(rgb).tobytes()
    return message


def jpeg_message(frame: Frame) -> CompressedImage:
    """sensor_msgs/CompressedImage of a frame, in its full size."""
    bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    message = CompressedImage(header=header_of(frame), format="rgb8; jpeg compressed bgr8")
    message.data = data.tobytes()
    return message
