# SPDX-License-Identifier: Apache-2.0
"""An MCAP file. Its index, where there is one, saves reading chunks that nobody wants."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Message, MessageIndex, Schema
from mcap.summary import Summary

from mobilevlm_ros.bags.reading.recorded import LARGEST, RecordedMessage, Serialization, Topic, full_type

MAGIC = b"\x89MCAP0\r\n"

_HEAD = struct.Struct("<BQ")
_CHUNK_HEAD = 8 + 8 + 8 + 4
_BROKEN = (McapError, struct.error, UnicodeDecodeError, KeyError, EOFError, RuntimeError, ValueError)
"""What the library raises about bytes that make no sense."""


class McapFile:
    """See `BagFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO = path.open("rb")
        self._size = path.stat().st_size
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self.damage: list[str] = []
        self._summary = self._read_summary()
        statistics = None if self._summary is None else self._summary.statistics
        if self._summary is None or statistics is None:
            self._scan()
            return
        self._schemas, self._channels = dict(self._summary.schemas), dict(self._summary.channels)
        self.start_ns: int | None = statistics.message_start_time if statistics.message_count else None
        self.end_ns: int | None = statistics.message_end_time if statistics.message_count else None
        self.topics = self._topics(Counter(statistics.channel_message_counts))

    def messages(
        self, topics: Collection[str], first: Counter[str], start_ns: int, end_ns: int
    ) -> Iterator[RecordedMessage]:
        """See `BagFile`."""
        for message in self._messages(topics, first, start_ns, end_ns):
            channel = self._channels.get(message.channel_id)
            schema = None if channel is None else self._schemas.get(channel.schema_id)
            if channel is None or schema is None or channel.topic not in topics:
                continue
            index = first[channel.topic]
            first[channel.topic] += 1
            if start_ns <= message.log_time <= end_ns:
                how: Serialization = "ros1" if channel.message_encoding == "ros1" else "cdr"
                yield RecordedMessage(
                    channel.topic,
                    full_type(schema.name),
                    index,
                    message.log_time,
                    message.data,
                    how,
                )

    def close(self) -> None:
        """See `BagFile`."""
        self._stream.close()

    def _read_summary(self) -> Summary | None:
        """What the file's end says; None where it ends early, or has no index."""
        try:
            summary = make_reader(self._stream).get_summary()
        except _BROKEN:
            return None
        return summary if summary is not None and summary.chunk_indexes else None

    def _scan(self) -> None:
        """All that an index would tell, by reading everything once."""
        counts: Counter[int] = Counter()
        self.start_ns = self.end_ns = None
        for message in self._in_order():
            counts[message.channel_id] += 1
            time = message.log_time
            self.start_ns = time if self.start_ns is None else min(self.start_ns, time)
            self.end_ns = time if self.end_ns is None else max(self.end_ns, time)
        self.topics = self._topics(counts)

    def _topics(self, counts: Counter[int]) -> list[Topic]:
        found: dict[str, Topic] = {}
        for number, channel in self._channels.items():
            schema = self._schemas.get(channel.schema_id)
            if schema is not None:
                before = found.get(channel.topic)
                count = counts[number] + (0 if before is None else before.count or 0)
                found[channel.topic] = Topic(channel.topic, full_type(schema.name), count)
        return sorted(found.values(), key=lambda topic: topic.name)

    def _messages(
        self, topics: Collection[str], first: Counter[str], start_ns: int, end_ns: int
    ) -> Iterator[Message]:
        if self._summary is None:
            self.damage.clear()  # the scan has said it already
            yield from self._in_order()
            return
        wanted = {number for number, channel in self._channels.items() if channel.topic in topics}
        for entry in sorted(self._summary.chunk_indexes, key=lambda entry: entry.chunk_start_offset):
            indexed = entry.message_index_offsets
            if indexed and not wanted & set(indexed):
                continue
            outside = entry.message_end_time < start_ns or entry.message_start_time > end_ns
            try:
                if indexed and outside:
                    for number in sorted(wanted & set(indexed)):
                        first[self._channels[number].topic] += self._count(indexed[number])
                    continue
                self._stream.seek(entry.chunk_start_offset)
                yield from self._one(entry.chunk_start_offset)
            except _BROKEN as error:
                self._damaged(entry.chunk_start_offset, error)

    def _count(self, offset: int) -> int:
        """Messages that a message index lists."""
        self._stream.seek(offset + _HEAD.size)
        return len(MessageIndex.read(ReadDataStream(self._stream)).records)

    def _one(self, offset: int) -> Iterator[Message]:
        opcode, length = _HEAD.unpack(self._stream.read(_HEAD.size))
        if opcode != Opcode.CHUNK or length > LARGEST:
            raise ValueError("there is no chunk where the index says")
        yield from self._unpack(self._stream.read(length), length, offset)

    def _in_order(self) -> Iterator[Message]:
        """Every message up to the file's end, or to where it breaks off."""
        self._stream.seek(len(MAGIC))
        while True:
            offset = self._stream.tell()
            head = self._stream.read(_HEAD.size)
            if len(head) < _HEAD.size:
                self.damage.append(f"{self._path} breaks off after {self._size} bytes: it was not closed")
                return
            opcode, length = _HEAD.unpack(head)
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return
            if opcode not in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK):
                self._stream.seek(length, 1)
                continue
            body = self._stream.read(min(length, LARGEST))
            try:
                if opcode == Opcode.CHUNK:
                    yield from self._unpack(body, length, offset)
                elif len(body) == length:
                    yield from self._take(opcode, body)
            except _BROKEN as error:
                self._damaged(offset, error)
            if len(body) < length:
                self.damage.append(f"{self._path} breaks off in the record at byte {offset}")
                return

    def _unpack(self, body: bytes, length: int, offset: int) -> Iterator[Message]:
        """The messages of a chunk, or of the part of it that is there."""
        chunk = Chunk.read(ReadDataStream(BytesIO(body)))
        whole = len(body) == length
        data = _decompressed(chunk, whole)
        if whole and chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
            raise ValueError("its checksum is wrong")
        at = 0
        while at + _HEAD.size <= len(data):
            opcode, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if at + size > len(data):
                if whole:
                    raise ValueError("a record is longer than its chunk")
                return
            yield from self._take(opcode, data[at : at + size])
            at += size

    def _take(self, opcode: int, body: bytes) -> Iterator[Message]:
        stream = ReadDataStream(BytesIO(body))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            self._channels[channel.id] = channel
        elif opcode == Opcode.MESSAGE:
            yield Message.read(stream, len(body))

    def _damaged(self, offset: int, error: Exception) -> None:
        self.damage.append(f"{self._path} is damaged at byte {offset} ({error}): that part is left out")


def _decompressed(chunk: Chunk, whole: bool) -> bytes:
    """The records of a chunk; of one that breaks off, those before."""
    if chunk.uncompressed_size > LARGEST:
        raise ValueError(f"a chunk of {chunk.uncompressed_size} bytes")
    if chunk.compression == "":
        return chunk.data
    try:
        if chunk.compression == "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(chunk.data)
        if chunk.compression == "lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(chunk.data))
    except (zstandard.ZstdError, RuntimeError) as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
    raise ValueError(f"the compression {chunk.compression!r} is not known")
