# SPDX-License-Identifier: Apache-2.0
"""What a file of a recording holds: topics, and messages as they were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

LARGEST = 1 << 30
"""Bytes of one chunk or message; a larger one is a damaged or hostile file."""

Serialization = Literal["cdr", "ros1"]


@dataclass(frozen=True)
class Topic:
    """A topic of a recording.

    Attributes:
        name: as recorded, with its '/'.
        type: 'sensor_msgs/msg/Image'; of ROS 1 too.
        count: messages; None where only reading them all would tell.
    """

    name: str
    type: str
    count: int | None = None


@dataclass(frozen=True, repr=False)
class RecordedMessage:
    """A message as it was written.

    Attributes:
        topic, type: as of `Topic`.
        index: among the messages of its topic, from 0 in recorded order.
        time_ns: when it was recorded, nanoseconds.
        data: serialised.
        serialization: how: 'cdr' or 'ros1'.
    """

    topic: str
    type: str
    index: int
    time_ns: int
    data: bytes
    serialization: Serialization


class BagFile(Protocol):
    """One file of a recording.

    Attributes:
        topics: those that have a known type.
        start_ns, end_ns: of the first and last message, nanoseconds; None where nothing tells.
        damage: what could not be read so far, in sentences.
    """

    topics: list[Topic]
    start_ns: int | None
    end_ns: int | None
    damage: list[str]

    def messages(
        self, topics: Collection[str], first: Counter[str], start_ns: int, end_ns: int
    ) -> Iterator[RecordedMessage]:
        """Messages of some topics with start_ns <= time_ns <= end_ns, in recorded order.

        Args:
            first: index of the next message of each topic; counts on, also over what lies outside the time.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def full_type(name: str) -> str:
    """'sensor_msgs/msg/Image' of 'sensor_msgs/Image', as ROS 1 writes it."""
    package, _, rest = name.partition("/")
    return name if "/" in rest or not rest else f"{package}/msg/{rest}"
