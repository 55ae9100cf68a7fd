# SPDX-License-Identifier: Apache-2.0
"""The file of a memory: SQLite, readable by any tool for it.

`records` holds what was seen, one row each; `texts` each different text once, with its vector in `vectors`
and its words in the full-text index `words` (FTS5). Killed at any moment, the file holds what was committed
(write-ahead log). Several processes may read it while one writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import Any

from mobilevlm_ros.errors import MemoryFileError
from mobilevlm_ros.memory.database_file import LOCK_WAIT, address, remedy
from mobilevlm_ros.memory.record import Record
from mobilevlm_ros.memory.schema import APPLICATION_ID, INDEXES, SCHEMA, VERSION, statements
from mobilevlm_ros.memory.vectors import TextVectors

_AT_ONCE = 500
"""Records that are forgotten in one transaction: nobody waits long for it, and the log stays small."""


class MemoryStore:
    """A memory file that is open. One thread at a time; a context manager.

    Args:
        path: of the file.
        writable: create it where it is missing; else it is only read, and must be there.

    Raises:
        MemoryFileError: it is missing, another kind of file, of another version, damaged, or in use.
    """

    def __init__(self, path: Path, writable: bool = False) -> None:
        self.path = path
        if not writable and not path.is_file():
            raise MemoryFileError(f"there is no memory {path}: make one with `mobilevlm index ... -o {path}`")
        if path.is_dir() or not path.parent.is_dir():
            raise MemoryFileError(f"{path} cannot be a memory: name a file in a directory that exists")
        with self.named():
            self.connection = sqlite3.connect(
                address(path, writable),
                uri=True,
                timeout=LOCK_WAIT,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with self.named():
                self._open(writable)
        except BaseException:
            self.connection.close()
            raise

    def _open(self, writable: bool) -> None:
        run = self.connection.execute
        (version,), (application,) = (
            run("PRAGMA user_version").fetchone(),
            run("PRAGMA application_id").fetchone(),
        )
        empty = run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if empty and writable and not version:
            run("PRAGMA journal_mode = WAL")
            self._create()
        elif application != APPLICATION_ID:
            raise MemoryFileError(f"{self.path} is a database of something else: name another file")
        elif version != VERSION:
            raise MemoryFileError(
                f"{self.path} is a memory of version {version}, and this program reads version {VERSION}: "
                "make it again from the records with `mobilevlm index`, into another file"
            )
        if writable:
            for statement in statements(INDEXES):
                run(statement)
        run("PRAGMA synchronous = NORMAL")  # in WAL a power cut may lose the last commits, never the file
        run("PRAGMA temp_store = MEMORY")
        run("PRAGMA cache_size = -65536")

    def _create(self) -> None:
        with self.transaction():
            run = self.connection.execute
            if run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return  # another process was faster
            for statement in statements(SCHEMA):
                run(statement)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {VERSION}")

    def __enter__(self) -> MemoryStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the last one to do so folds the write-ahead log into it."""
        self.connection.close()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of SQLite become MemoryFileError, with the file and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise MemoryFileError(f"memory {self.path}: {error}; {remedy(str(error))}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is written inside."""
        with self.named():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise

    def add(self, records: Iterable[Record], vectors: TextVectors | None) -> int:
        """Remembers records, all or none; how many of them were new. Without vectors they are found by their
        words only, until `update_vectors`.
        """
        added = 0
        run = self.connection.execute
        with self.transaction():
            for record in map(_storable, records):
                text_id = self._text_id(record, vectors)
                place = record.position
                cursor = run(
                    "INSERT OR IGNORE INTO records (text_id, stamp_ns, camera, kind, confidence, question,"
                    " answer, model_id, frame_id, topic, bag, position_frame, x, y, z, kept_ns)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        text_id, record.stamp_ns, record.camera, record.kind, record.confidence,
                        record.question, record.text, record.model_id, record.frame_id,
                        record.topic, record.bag,
                        *((place.frame, place.x, place.y, place.z) if place else (None,) * 4), time_ns(),
                    ),
                )  # fmt: skip
                if cursor.rowcount:
                    added += 1
                    if record.thumbnail:
                        run("INSERT INTO thumbnails VALUES (?, ?)", (cursor.lastrowid, record.thumbnail))
        return added

    def _text_id(self, record: Record, vectors: TextVectors | None) -> int:
        run = self.connection.execute
        key = (record.searched, record.shown)
        found = run("SELECT id FROM texts WHERE searched = ? AND shown = ?", key).fetchone()
        if found is not None:
            return int(found[0])
        text_id = int(run("INSERT INTO texts (searched, shown) VALUES (?, ?)", key).lastrowid or 0)
        if vectors is not None:
            run("INSERT INTO vectors VALUES (?, ?)", (text_id, vectors.packed(record.searched)))
        return text_id

    def update_vectors(self, vectors: TextVectors) -> int:
        """Gives every text a vector of this model; how many were made. Nothing to do where they are."""
        run = self.connection.execute
        made = 0
        with self.transaction():
            if self.vector_name != vectors.name:
                run("DELETE FROM vectors")
                run("INSERT OR REPLACE INTO meta VALUES ('vectors', ?)", (vectors.name,))
            missing = run(
                "SELECT id, searched FROM texts WHERE id NOT IN (SELECT text_id FROM vectors)"
            ).fetchall()
            for text_id, searched in missing:
                run("INSERT INTO vectors VALUES (?, ?)", (text_id, vectors.packed(searched)))
                made += 1
        return made

    @property
    def vector_name(self) -> str:
        """Name of the vectors' space; empty where there are none."""
        with self.named():
            found = self.connection.execute("SELECT value FROM meta WHERE name = 'vectors'").fetchone()
        return str(found[0]) if found else ""

    def size(self) -> tuple[int, int]:
        """How many records there are, and the stamp of the oldest (0 without any)."""
        with self.named():
            run = self.connection.execute
            (count,) = run("SELECT count(*) FROM records").fetchone()
            (oldest,) = run("SELECT min(stamp_ns) FROM records").fetchone()
        return int(count), int(oldest or 0)

    @property
    def used_bytes(self) -> int:
        """Bytes of the file that hold something; free pages are used again."""
        with self.named():
            run = self.connection.execute
            pages, free, size = (
                run(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)

    def forget(self, most_bytes: int = 0, kept_before_ns: int = 0) -> int:
        """Forgets what was kept before a time (time.time_ns), and the oldest of the rest until it fits into
        so many bytes; how many records went. 0: no bound.
        """
        gone = 0
        while kept_before_ns and (removed := self._delete("kept_ns < ?", kept_before_ns)):
            gone += removed
        while most_bytes and self.used_bytes > most_bytes and (removed := self._delete("id > ?", 0)):
            gone += removed
        return gone

    def _delete(self, condition: str, value: int) -> int:
        """Forgets up to _AT_ONCE of the oldest records for which a condition holds, and texts without any."""
        run = self.connection.execute
        with self.transaction():
            rows = run(  # ids rise in the order of keeping
                f"SELECT id, text_id FROM records WHERE {condition} ORDER BY id LIMIT ?",  # nosec B608: constants
                (value, _AT_ONCE),
            ).fetchall()
            for record_id, _ in rows:
                run("DELETE FROM records WHERE id = ?", (record_id,))
            for text_id in {row[1] for row in rows}:
                run(
                    "DELETE FROM texts WHERE id = ? AND NOT EXISTS (SELECT 1 FROM records WHERE text_id = ?)",
                    (text_id, text_id),
                )
        return len(rows)


def _storable(record: Record) -> Record:
    """The record itself; half characters (lone surrogates), which UTF-8 cannot hold, replaced by '?'."""
    broken: dict[str, Any] = {
        item.name: value.encode("utf-8", "replace").decode()
        for item in fields(record)
        if isinstance(value := getattr(record, item.name), str) and not value.isprintable()
    }
    return replace(record, **broken) if broken else record
