# SPDX-License-Identifier: Apache-2.0
"""A .bag of ROS 1 (format 2.0), in recorded order; one that was not closed too.

The `rosbags` library reads in the order of time and refuses a bag without an index; a clock that jumps back
could not be seen, and a robot whose power failed would have recorded nothing.
"""

from __future__ import annotations

import bz2
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import lz4.frame

from mobilevlm_ros.bags.reading.recorded import LARGEST, RecordedMessage, Topic, full_type

MAGIC = b"#ROSBAG V2.0\n"

_BAG_HEADER, _MESSAGE, _CHUNK, _CHUNK_INFO, _CONNECTION = 3, 2, 5, 6, 7
_SIZE = struct.Struct("<I")


@dataclass(frozen=True)
class _Connection:
    topic: str
    type: str


@dataclass(frozen=True)
class _Entry:
    """What the index says about a chunk."""

    start_ns: int
    end_ns: int
    counts: dict[int, int] = field(default_factory=dict)


class _Broken(Exception):
    """Bytes that make no sense, or none any more."""


class Ros1File:
    """See `BagFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO = path.open("rb")
        self._connections: dict[int, _Connection] = {}
        self._index: dict[int, _Entry] = {}
        self.damage: list[str] = []
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        counts: Counter[int] = Counter()
        try:
            self._read_index(counts)
        except _Broken:
            self._index = {}
        if not self._index:
            self._scan(counts)
        by_topic: Counter[str] = Counter()
        for number, connection in self._connections.items():
            by_topic[connection.topic] += counts[number]
        kinds = {connection.topic: connection.type for connection in self._connections.values()}
        self.topics = [Topic(name, kind, by_topic[name]) for name, kind in sorted(kinds.items())]

    def messages(
        self, topics: Collection[str], first: Counter[str], start_ns: int, end_ns: int
    ) -> Iterator[RecordedMessage]:
        """See `BagFile`."""
        self.damage.clear()  # the scan has said it already
        for number, time, data in self._in_order(topics, first, start_ns, end_ns):
            connection = self._connections.get(number)
            if connection is None or connection.topic not in topics:
                continue
            index = first[connection.topic]
            first[connection.topic] += 1
            if start_ns <= time <= end_ns:
                yield RecordedMessage(connection.topic, connection.type, index, time, data, "ros1")

    def close(self) -> None:
        """See `BagFile`."""
        self._stream.close()

    def _read_index(self, counts: Counter[int]) -> None:
        """Connections and chunks as the bag's end lists them. Raises _Broken where there is no such end."""
        self._stream.seek(len(MAGIC))
        fields, _ = _record(self._stream)
        start = _number(fields, b"index_pos")
        if not start:
            raise _Broken("it has no index: it was not closed")
        self._stream.seek(start)
        for _ in range(_number(fields, b"conn_count")):
            self._connect(*_record(self._stream))
        for _ in range(_number(fields, b"chunk_count")):
            about, data = _record(self._stream)
            pairs = struct.iter_unpack("<II", data[: len(data) // 8 * 8])
            entry = _Entry(_time(about, b"start_time"), _time(about, b"end_time"), dict(pairs))
            self._index[_number(about, b"chunk_pos")] = entry
            counts.update(entry.counts)
        self.start_ns = min((entry.start_ns for entry in self._index.values()), default=None)
        self.end_ns = max((entry.end_ns for entry in self._index.values()), default=None)

    def _scan(self, counts: Counter[int]) -> None:
        counts.clear()
        for number, time, _ in self._in_order((), Counter(), 0, 1 << 63):
            counts[number] += 1
            self.start_ns = time if self.start_ns is None else min(self.start_ns, time)
            self.end_ns = time if self.end_ns is None else max(self.end_ns, time)

    def _connect(self, fields: dict[bytes, bytes], data: bytes) -> None:
        about = _fields(data)
        try:
            topic, kind = fields[b"topic"].decode(), about[b"type"].decode()
        except (KeyError, UnicodeDecodeError) as error:
            raise _Broken(f"a connection without topic or type: {error}") from error
        self._connections[_number(fields, b"conn")] = _Connection(topic, full_type(kind))

    def _in_order(
        self, topics: Collection[str], first: Counter[str], start_ns: int, end_ns: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """(connection, time, data) of every message, up to where the file ends or breaks off."""
        self._stream.seek(len(MAGIC))
        while True:
            offset = self._stream.tell()
            entry = self._index.get(offset)
            try:
                if entry is not None and (entry.end_ns < start_ns or entry.start_ns > end_ns):
                    for number, count in entry.counts.items():
                        first[self._connections[number].topic] += count
                    _record(self._stream, skip=True)
                    continue
                head = self._stream.read(1)
                if not head:
                    if not self._index:
                        self.damage.append(f"{self._path} has no index: it was not closed")
                    return
                self._stream.seek(offset)
                yield from self._read_one()
            except _Broken as error:
                self.damage.append(f"{self._path} is damaged or breaks off at byte {offset}: {error}")
                return

    def _read_one(self) -> Iterator[tuple[int, int, bytes]]:
        fields = _fields(_block(self._stream))
        op = _op(fields)
        if op not in (_CHUNK, _MESSAGE, _CONNECTION):
            _skip(self._stream)
            return
        size = _size(self._stream)
        data = self._stream.read(size)
        whole = len(data) == size
        if op == _CHUNK:
            yield from self._unpack(_decompressed(fields.get(b"compression", b"none"), data), whole)
        elif whole:
            yield from self._take(fields, data)
        if not whole:
            raise _Broken("the last record is not complete")

    def _unpack(self, data: bytes, whole: bool) -> Iterator[tuple[int, int, bytes]]:
        stream = BytesIO(data)
        while stream.tell() < len(data):
            try:
                record = _record(stream)
            except _Broken:
                if whole:
                    raise
                return
            yield from self._take(*record)

    def _take(self, fields: dict[bytes, bytes], data: bytes) -> Iterator[tuple[int, int, bytes]]:
        if _op(fields) == _CONNECTION:
            self._connect(fields, data)
        elif _op(fields) == _MESSAGE:
            yield _number(fields, b"conn"), _time(fields, b"time"), data


def _record(stream: BinaryIO, skip: bool = False) -> tuple[dict[bytes, bytes], bytes]:
    fields = _fields(_block(stream))
    if skip:
        _skip(stream)
        return fields, b""
    return fields, _block(stream)


def _size(stream: BinaryIO) -> int:
    head = stream.read(4)
    if len(head) < 4:
        raise _Broken("it ends there")
    size: int = _SIZE.unpack(head)[0]
    if size > LARGEST:
        raise _Broken(f"a record of {size} bytes")
    return size


def _block(stream: BinaryIO) -> bytes:
    size = _size(stream)
    data = stream.read(size)
    if len(data) < size:
        raise _Broken("it ends there")
    return data


def _skip(stream: BinaryIO) -> None:
    stream.seek(_size(stream), 1)


def _fields(header: bytes) -> dict[bytes, bytes]:
    found, at = {}, 0
    while at + 4 <= len(header):
        (size,) = _SIZE.unpack_from(header, at)
        name, mark, value = header[at + 4 : at + 4 + size].partition(b"=")
        if not mark or at + 4 + size > len(header):
            raise _Broken("a header that makes no sense")
        found[name] = value
        at += 4 + size
    return found


def _op(fields: dict[bytes, bytes]) -> int:
    value = fields.get(b"op", b"")
    if len(value) != 1:
        raise _Broken("a record without a kind")
    return value[0]


def _number(fields: dict[bytes, bytes], name: bytes) -> int:
    value = fields.get(name, b"")
    if len(value) not in (4, 8):
        raise _Broken(f"a record without {name.decode()}")
    return int.from_bytes(value, "little")


def _time(fields: dict[bytes, bytes], name: bytes) -> int:
    value = fields.get(name, b"")
    if len(value) != 8:
        raise _Broken(f"a record without {name.decode()}")
    seconds, nanoseconds = struct.unpack("<II", value)
    return int(seconds * 1_000_000_000 + nanoseconds)


def _decompressed(compression: bytes, data: bytes) -> bytes:
    """The records of a chunk; of one that breaks off, those before."""
    try:
        if compression == b"none":
            return data
        if compression == b"bz2":
            return bz2.BZ2Decompressor().decompress(data)
        if compression == b"lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
    except (OSError, RuntimeError, EOFError) as error:
        raise _Broken(f"a chunk that cannot be decompressed: {error}") from error
    raise _Broken(f"the compression {compression!r} is not known")
