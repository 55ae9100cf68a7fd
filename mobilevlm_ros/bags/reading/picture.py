# SPDX-License-Identifier: Apache-2.0
"""Pictures of a recording, decoded as the node decodes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from mobilevlm_ros.bags.reading.recorded import RecordedMessage, Serialization, Topic
from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.images.encodings import Encodings

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

_SECOND = 1_000_000_000
_LATEST = 1 << 31
"""Seconds of a stamp in ROS 2; ROS 1 has twice as many, and none below 0."""


def is_picture(topic: Topic) -> bool:
    """Whether a topic holds images, raw or compressed."""
    return topic.type in (IMAGE, COMPRESSED)


@dataclass
class _Compressed:
    """A CompressedImage whose data is bytes, as the decoders take them."""

    format: str
    data: bytes


@dataclass(frozen=True)
class RecordedPicture:
    """A picture that is not decoded yet.

    Attributes:
        stamp_ns, frame_id: of its header, unchanged.
        source: the message it came in.
    """

    stamp_ns: int
    frame_id: str
    source: RecordedMessage
    message: Any

    @property
    def time_ns(self) -> int:
        """The stamp; where the camera filled none, when it was recorded. Nanoseconds."""
        return self.stamp_ns or self.source.time_ns

    def decode(self, encodings: Encodings) -> NDArray[np.uint8]:
        """RGB u8[H, W, 3], by the functions that the node uses. Raises ImageError."""
        if self.source.type == IMAGE:
            return image_to_rgb(self.message, encodings)
        return compressed_to_rgb(_Compressed(self.message.format, self.message.data.tobytes()), encodings)


def picture_of(source: RecordedMessage) -> RecordedPicture:
    """The image message of a topic for which `is_picture` is true.

    Raises:
        ImageError: its bytes are no such message.
    """
    store = _store(source.serialization)
    read = store.deserialize_ros1 if source.serialization == "ros1" else store.deserialize_cdr
    try:
        message: Any = read(source.data, source.type)
    except (SerdeError, ValueError, IndexError, AssertionError) as error:
        raise ImageError(f"its {len(source.data)} bytes are no {source.type}: {error}") from error
    header = message.header
    stamp_ns = int(header.stamp.sec) * _SECOND + int(header.stamp.nanosec)
    if not -_LATEST <= int(header.stamp.sec) < _LATEST:
        raise ImageError(f"its stamp, {int(header.stamp.sec)} s, is later than ROS 2 can tell (January 2038)")
    return RecordedPicture(stamp_ns, str(header.frame_id), source, message)


@lru_cache(maxsize=2)
def _store(serialization: Serialization) -> Typestore:
    return get_typestore(Stores.ROS1_NOETIC if serialization == "ros1" else Stores.ROS2_HUMBLE)
