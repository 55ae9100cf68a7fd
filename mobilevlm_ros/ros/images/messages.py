# SPDX-License-Identifier: Apache-2.0
"""From pixels to image messages."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

JPEG_QUALITY = 90


def image_message(rgb: NDArray[np.uint8], header: Header) -> Image:
    """sensor_msgs/Image (rgb8) of u8[H, W, 3]."""
    height, width = rgb.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=width * 3)
    message.data = octets(np.ascontiguousarray(rgb).tobytes())
    return message


def jpeg_message(rgb: NDArray[np.uint8], header: Header, quality: int = JPEG_QUALITY) -> CompressedImage:
    """sensor_msgs/CompressedImage (JPEG, `quality` 1 to 100) of u8[H, W, 3], in its full size."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = octets(data.tobytes())
    return message


def octets(data: bytes) -> array[int]:
    """Bytes as messages keep them. Of anything else Humble's messages check every byte in Python, which takes
    0.2 s for a 720p image.
    """
    return array("B", data)
