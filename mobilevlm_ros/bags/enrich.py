# SPDX-License-Identifier: Apache-2.0
"""What a recording adds to its records in a memory: where the robot was, and small pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.reading.picture import is_picture, picture_of
from mobilevlm_ros.bags.reading.recorded import RecordedMessage
from mobilevlm_ros.bags.records import Record
from mobilevlm_ros.errors import BagError, ImageError
from mobilevlm_ros.memory.record import Position
from mobilevlm_ros.memory.sheet import thumbnail
from mobilevlm_ros.memory.track import Track, position_of
from mobilevlm_ros.memory.transforms import Transforms, check_frame
from mobilevlm_ros.ros.images.encodings import Encodings

POSES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
"""Types of messages that say where the robot was, with the frame in their header."""

TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
"""Types of /tf and /tf_static, in ROS 2 and ROS 1."""


@dataclass(frozen=True)
class PlaceSource:
    """What says where a picture was taken.

    Attributes:
        odometry: topic of one of POSES; empty: none.
        tf_frame: frame in which the camera's place is looked up, by /tf and /tf_static; empty: in none.
    """

    odometry: str = ""
    tf_frame: str = ""

    def __bool__(self) -> bool:
        return bool(self.odometry or self.tf_frame)


class Recording:
    """The recording that records are of. A context manager.

    Args:
        path: of it.
        places: what says where the pictures were taken.
        pictures: make thumbnails.
        encodings: how to read the pictures.

    Raises:
        BagError: it is missing or no recording, or has no such topic or frame.
    """

    def __init__(self, path: Path, places: PlaceSource, pictures: bool, encodings: Encodings) -> None:
        self._bag = Bag(path)
        self._encodings = encodings
        self._track, self._transforms, self._above = Track(), Transforms(), places.tf_frame
        try:
            if places.odometry:
                self._read_poses(places.odometry)
            if places.tf_frame:
                self._read_transforms()
        except BaseException:
            self._bag.close()
            raise
        topics = [topic.name for topic in self._bag.topics.values() if is_picture(topic)]
        self._pictures: Iterator[RecordedMessage] = self._bag.messages(topics) if pictures else iter(())
        self._last: tuple[tuple[str, int], bytes | None] = (("", -1), None)

    def close(self) -> None:
        """Let go of the recording."""
        self._bag.close()

    def place(self, record: Record) -> Position | None:
        """Where the robot, or with `tf_frame` the camera, was at a record's time; None where that is not
        known.
        """
        if self._above:
            return self._transforms.position(record.frame_id, self._above, record.time_ns)
        return self._track.at(record.time_ns)

    def picture(self, record: Record) -> bytes | None:
        """The thumbnail of a record's picture (JPEG); None where it cannot be read. Records come in the order
        of the recording.
        """
        wanted = (record.topic, record.index)
        if self._last[0] == wanted:
            return self._last[1]
        for message in self._pictures:
            if (message.topic, message.index) == wanted:
                try:
                    small = thumbnail(picture_of(message).decode(self._encodings))
                except ImageError:
                    small = None
                self._last = (wanted, small)
                return small
        return None

    def _read_poses(self, name: str) -> None:
        topic = self._bag.topics.get(name)
        if topic is None or topic.type not in POSES:
            there = ", ".join(t.name for t in self._bag.topics.values() if t.type in POSES) or "none"
            raise BagError(
                f"{self._bag.path} has no topic {name} of {', '.join(POSES)}: those there are: {there}"
            )
        for message in self._bag.messages([name]):
            told = _told(message)
            if told is None:
                continue
            stamp = told.header.stamp
            time_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec) or message.time_ns
            place = position_of(told)
            if place is not None:
                self._track.add(time_ns, place)

    def _read_transforms(self) -> None:
        names = [topic.name for topic in self._bag.topics.values() if topic.type in TRANSFORMS]
        for message in self._bag.messages(names):
            told = _told(message)
            if told is not None:
                self._transforms.add(told.transforms, message.topic.endswith("static"))
        check_frame(self._transforms, self._above, str(self._bag.path))


def _told(message: RecordedMessage) -> Any:
    """The message itself; None where its bytes are damaged."""
    ros1 = message.serialization == "ros1"
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    try:
        return (store.deserialize_ros1 if ros1 else store.deserialize_cdr)(message.data, message.type)
    except (SerdeError, ValueError, IndexError, AssertionError):
        return None
