# SPDX-License-Identifier: Apache-2.0
"""An MCAP as rosbag2 writes it: definitions embedded, so that anything that reads MCAP reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

from mcap.writer import Writer

from mobilevlm_ros.bags.messages import schema


class McapWriter:
    """Messages of ROS 2 into one MCAP.

    Args:
        stream: to write to; stays open.
        metadata: records of text, by their names.
    """

    def __init__(self, stream: BinaryIO, metadata: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._writer = Writer(stream)
        self._writer.start(profile="ros2", library="mobilevlm_ros")
        for name, values in (metadata or {}).items():
            self._writer.add_metadata(name, dict(values))
        self._schemas: dict[str, int] = {}
        self._count = 0

    def add_topic(self, topic: str, kind: str) -> int:
        """Its number. `kind` is a type that `messages.typestore` knows.

        No QoS is told: players then take their default. Humble writes its policies as numbers and Jazzy as
        names, and neither is sure to read the other's.
        """
        text, type_hash = schema(kind)
        if kind not in self._schemas:
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        return self._writer.register_channel(
            topic, "cdr", self._schemas[kind], {"topic_type_hash": type_hash}
        )

    def write(self, topic: int, time_ns: int, data: bytes) -> None:
        """A serialised message of that topic, recorded at a time (nanoseconds, 0 or more)."""
        self._writer.add_message(topic, time_ns, data, time_ns, self._count)
        self._count += 1

    def finish(self) -> None:
        """Writes the index."""
        self._writer.finish()  # type: ignore[no-untyped-call]
