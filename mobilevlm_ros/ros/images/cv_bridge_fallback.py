# SPDX-License-Identifier: Apache-2.0
"""cv_bridge, where it is installed, for encodings that our own converter does not know.

Ours comes first although cv_bridge is what ROS users expect. They give equal pictures wherever cv_bridge
gives a right one; but where the padding of a row is no multiple of a pixel its Python side silently returns a
sheared picture, with NumPy 2 it fails on messages marked as big-endian, and one built for NumPy 1 may crash.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError


def bridged(message: Any) -> NDArray[np.uint8] | None:
    """RGB u8[H, W, 3] of a sensor_msgs/Image by cv_bridge; None where it is not there or does not know the
    encoding either.

    Raises:
        ImageError: it knows the encoding, but what it returns is no colour picture.
    """
    bridge = installed_bridge()
    if bridge is None:
        return None
    try:
        rgb = bridge.imgmsg_to_cv2(message, "rgb8")
    except Exception:  # CvBridgeError, and whatever its C++ throws at malformed messages
        return None
    expected = (message.height, message.width, 3)
    if not isinstance(rgb, np.ndarray) or rgb.shape != expected or rgb.dtype != np.uint8:
        raise ImageError(
            f"cv_bridge makes no colour picture of encoding {message.encoding!r}: publish rgb8, bgr8 or mono8"
        )
    return np.ascontiguousarray(rgb)


@lru_cache(maxsize=1)
def installed_bridge() -> Any:
    """A CvBridge, or None."""
    if (
        int(np.__version__.split(".")[0]) >= 2
    ):  # the packages of Humble, Jazzy and Kilted are built for NumPy 1
        return None
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception:  # an ImportError, or whatever a broken installation raises
        return None
