# SPDX-License-Identifier: Apache-2.0
"""Picture files as arrays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image import Pixels


def read_picture(path: str | Path) -> Pixels:
    """A picture file as RGB u8[H, W, 3], turned upright as its EXIF says. Raises ImageError."""
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (cv2.error, ValueError):  # ValueError: a NUL in the path
        image = None
    if image is None:
        raise ImageError(f"{path} is not a picture that OpenCV can read; convert it to JPEG or PNG")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)  # OpenCV reads blue first
