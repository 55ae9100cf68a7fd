# SPDX-License-Identifier: Apache-2.0
"""A file of rosbag2's sqlite3 storage (.db3), every schema version of it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from mobilevlm_ros.bags.reading.recorded import RecordedMessage, Topic, full_type
from mobilevlm_ros.errors import BagError

MAGIC = b"SQLite format 3\0"


class SqliteFile:
    """See `BagFile`. Raises BagError for a database that is no recording."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage: list[str] = []
        whole = _whole_size(path)
        self._complete = path.stat().st_size >= whole
        if not self._complete:
            self.damage.append(f"{path} breaks off after {path.stat().st_size} of {whole} bytes")
        self._database = _connect(path)
        try:
            rows = self._database.execute("SELECT id, name, type FROM topics ORDER BY id").fetchall()
        except sqlite3.Error as error:
            self._database.close()
            raise BagError(f"{path} holds no recording of ROS 2 ({error}): give a .db3 of rosbag2") from error
        self._topics = {number: (str(name), full_type(str(kind))) for number, name, kind in rows}
        counts, self.start_ns, self.end_ns = self._statistics()
        self.topics = sorted(
            (
                Topic(name, kind, None if counts is None else counts[number])
                for number, (name, kind) in self._topics.items()
            ),
            key=lambda topic: topic.name,
        )

    def _statistics(self) -> tuple[Counter[int] | None, int | None, int | None]:
        try:
            rows = self._database.execute(
                "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY topic_id"
            ).fetchall()
        except sqlite3.DatabaseError:
            rows = [(None,)]
        if not self._complete or any(value is None for row in rows for value in row):
            return None, *self._bounds()
        counts = Counter({number: count for number, count, _, _ in rows})
        return (
            counts,
            min((row[2] for row in rows), default=None),
            max((row[3] for row in rows), default=None),
        )

    def _bounds(self) -> tuple[int | None, int | None]:
        """First and last time of what can be read."""
        low: int | None = None
        high: int | None = None
        try:
            for (time,) in self._database.execute("SELECT timestamp FROM messages NOT INDEXED ORDER BY id"):
                low = time if low is None else min(low, time)
                high = time if high is None else max(high, time)
        except (sqlite3.DatabaseError, TypeError):  # whoever reads the messages is told
            pass
        return low, high

    def messages(
        self, topics: Collection[str], first: Counter[str], start_ns: int, end_ns: int
    ) -> Iterator[RecordedMessage]:
        """See `BagFile`."""
        wanted = [number for number, (name, _) in self._topics.items() if name in topics]
        marks = ",".join("?" * len(wanted))
        try:
            # NOT INDEXED: rows lie in the order in which they were written; the index over the times may be
            # lost.
            heads = self._database.execute(
                "SELECT id, topic_id, timestamp FROM messages NOT INDEXED "
                f"WHERE topic_id IN ({marks}) ORDER BY id",  # nosec B608  # marks are '?'
                wanted,
            )
            for row, number, time in heads:
                name, kind = self._topics[number]
                index = first[name]
                first[name] += 1
                if start_ns <= time <= end_ns:
                    (data,) = self._database.execute(
                        "SELECT data FROM messages WHERE id = ?", (row,)
                    ).fetchone()
                    yield RecordedMessage(name, kind, index, time, bytes(data), "cdr")
        except (sqlite3.DatabaseError, TypeError) as error:
            if self._complete:
                self.damage.append(f"{self._path} is damaged ({error}): the rest is left out")

    def close(self) -> None:
        """See `BagFile`."""
        self._database.close()


def _whole_size(path: Path) -> int:
    """Bytes that the database's header says it has (sqlite.org/fileformat.html, 1.3)."""
    with path.open("rb") as file:
        header = file.read(100)
    page = int.from_bytes(header[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")


def _connect(path: Path) -> sqlite3.Connection:
    """Read-only. What a recorder that was killed left in the write-ahead log is read too, where it can be."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    log = path.with_name(f"{path.name}-wal")
    modes = ("", "&immutable=1") if log.exists() and log.stat().st_size else ("&immutable=1",)
    for mode in modes:
        database = sqlite3.connect(address + mode, uri=True, check_same_thread=False)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            # Lets SQLite open a file that is shorter than its header says.
            database.execute("PRAGMA writable_schema = ON")
            database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            if mode == modes[-1]:
                return database
            database.close()
            continue
        return database
    raise AssertionError
