# SPDX-License-Identifier: Apache-2.0
"""What a recording adds to its records in a memory: where the robot was, and small pictures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
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
from mobilevlm_ros.ros.images.encodings import Encodings

NEAR_ENOUGH = 500_000_000
"""Nanoseconds between a picture and the pose that stands for its place, at most."""

POSES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
"""Types of messages that say where the robot was, with the frame in their header."""


class Recording:
    """The recording that records are of. A context manager.

    Args:
        path: of it.
        poses: topic that says where the robot was; empty: none.
        pictures: make thumbnails.
        encodings: how to read the pictures.

    Raises:
        BagError: it is missing or no recording, or has no such topic.
    """

    def __init__(self, path: Path, poses: str, pictures: bool, encodings: Encodings) -> None:
        self._bag = Bag(path)
        self._encodings = encodings
        try:
            self._times, self._places = self._read_poses(poses) if poses else ([], [])
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
        """Where the robot was at a record's time; None where no pose is near enough."""
        at = bisect_left(self._times, record.time_ns)
        near = [i for i in (at - 1, at) if 0 <= i < len(self._times)]
        best = min(near, key=lambda i: abs(self._times[i] - record.time_ns), default=None)
        if best is None or abs(self._times[best] - record.time_ns) > NEAR_ENOUGH:
            return None
        return self._places[best]

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

    def _read_poses(self, name: str) -> tuple[list[int], list[Position]]:
        topic = self._bag.topics.get(name)
        if topic is None or topic.type not in POSES:
            there = ", ".join(t.name for t in self._bag.topics.values() if t.type in POSES) or "none"
            raise BagError(
                f"{self._bag.path} has no topic {name} of {', '.join(POSES)}: those there are: {there}"
            )
        found: list[tuple[int, Position]] = []
        for message in self._bag.messages([name]):
            told = _pose(message)
            if told is not None:
                found.append(told)
        found.sort(key=lambda pair: pair[0])
        return [time for time, _ in found], [place for _, place in found]


def _pose(message: RecordedMessage) -> tuple[int, Position] | None:
    ros1 = message.serialization == "ros1"
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    try:
        read = store.deserialize_ros1 if ros1 else store.deserialize_cdr
        told: Any = read(message.data, message.type)
    except (SerdeError, ValueError, IndexError, AssertionError):
        return None
    pose = told.pose.pose if hasattr(told.pose, "pose") else told.pose
    stamp = told.header.stamp
    time = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec) or message.time_ns
    place = pose.position
    return time, Position(str(told.header.frame_id), float(place.x), float(place.y), float(place.z))
