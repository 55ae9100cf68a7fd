# SPDX-License-Identifier: Apache-2.0
"""What the node has seen, kept in a file and searched there, on threads of its own."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, time_ns

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.memory.record import Match, Query, Record
from mobilevlm_ros.memory.search import Searcher
from mobilevlm_ros.memory.sheet import thumbnail
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import TextVectors

COMMIT_PERIOD = 0.5
"""Seconds between commits: what a kill can lose."""

FORGET_PERIOD = 10.0
"""Seconds between looks at what is too old or too much."""

CLOSE_TIMEOUT = 20.0
"""Seconds that the end of the node waits for the disk."""

MOST_WAITING = 256
"""Records that wait to be written; while the disk does not take them, newer ones are dropped."""

LOG_BYTES = 8 << 20
"""What the write-ahead log may take beside the file, of the bytes that are allowed."""

_SHARE = 0.9  # of the bytes that are allowed: what is kept; the rest is for pages that are half full

Item = tuple[Record, "NDArray[np.uint8] | None"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Bounds of a node's memory.

    Attributes:
        nbytes: of its file.
        age: seconds after which a record is forgotten; infinite or negative: never.
        thumbnails: keep a small picture with each record.
    """

    nbytes: int
    age: float
    thumbnails: bool


@dataclass(frozen=True)
class Held:
    """How many records the file has, the bytes that they take, and the stamp of the oldest (ns)."""

    records: int = 0
    nbytes: int = 0
    oldest_ns: int = 0


@dataclass(frozen=True)
class Found:
    """What a search found, how many records there are, and the stamp of the oldest (ns)."""

    matches: list[Match]
    remembered: int
    oldest_ns: int


class NodeMemory:
    """Writes on one thread and searches on another: `remember` never waits for the disk. Thread-safe.

    Args:
        path: of the file; it is made where it is missing.
        limits: what it may take.
        trouble: called, on the writing thread, with a sentence when records could not be written.

    Attributes:
        kept: records that were written.
        dropped: records that were lost: the disk did not take them.
        held: what the file has; looked at every FORGET_PERIOD.
        problem: what the disk said last; empty since it has taken something again.

    Raises:
        MemoryFileError: the file cannot be used.
    """

    def __init__(self, path: Path, limits: Limits, trouble: Callable[[str], None]) -> None:
        self.path = path
        self.kept = self.dropped = 0
        self.held = Held()
        self.problem = ""
        self._limits = limits
        self._trouble = trouble
        self._store = MemoryStore(path, writable=True)
        self._vectors: TextVectors | None = None
        self._used: TextVectors | None = None  # by the writing thread
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._searcher: Searcher | None = None
        self._searches = ThreadPoolExecutor(1, "memory_search")
        self._thread = threading.Thread(target=self._write, name="memory", daemon=True)
        self._thread.start()

    def use(self, vectors: TextVectors) -> None:
        """From now on texts get these vectors; those that have others get them too, in the background."""
        with self._changed:
            self._vectors = vectors
            self._changed.notify()

    def remember(self, record: Record, image: NDArray[np.uint8] | None) -> None:
        """Keep a record, with a small picture of the image RGB u8[H, W, 3] where that is wanted."""
        with self._changed:
            if self._closing:
                return
            if len(self._waiting) >= MOST_WAITING:
                self.dropped += 1
                return
            self._waiting.append((record, image if self._limits.thumbnails else None))
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._waiting)

    def search(self, query: Query) -> Future[Found]:
        """Search on another thread. The future raises OptionError and MemoryFileError."""
        return self._searches.submit(self._search, query)

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT)
        self._searches.shutdown(wait=True, cancel_futures=True)
        if self._searcher is not None:
            self._searcher.close()

    def _search(self, query: Query) -> Found:
        vectors = self._vectors
        if self._searcher is None or self._searcher.vectors is not vectors:
            if self._searcher is not None:
                self._searcher.close()
            self._searcher = Searcher(MemoryStore(self.path), vectors)
        matches = self._searcher.search(query)
        return Found(matches, *self._searcher.size())

    def _write(self) -> None:
        forgotten = -FORGET_PERIOD
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._has_work, FORGET_PERIOD)
                    self._changed.wait_for(lambda: self._closing, COMMIT_PERIOD)  # more may come
                    items, vectors, closing = list(self._waiting), self._vectors, self._closing
                if vectors is not self._used:
                    self._try(self._revector)
                if items:
                    self._try(lambda: self._add(items), len(items))  # noqa: B023  called at once
                with self._changed:
                    for _ in items:
                        self._waiting.popleft()
                if monotonic() - forgotten >= FORGET_PERIOD:
                    forgotten = monotonic()
                    self._try(self._forget)
                if closing:
                    return
        finally:
            self._store.close()

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._closing or self._vectors is not self._used

    def _revector(self) -> None:
        self._used = self._vectors
        if self._used is not None:
            self._store.update_vectors(self._used)

    def _add(self, items: list[Item]) -> None:
        records = [
            record if image is None else replace(record, thumbnail=thumbnail(image))
            for record, image in items
        ]
        added = self._store.add(records, self._used)
        self.kept += added
        oldest = min([self.held.oldest_ns] * bool(self.held.records) + [r.stamp_ns for r in records])
        self.held = Held(self.held.records + added, self.held.nbytes, oldest)

    def _forget(self) -> None:
        age = self._limits.age
        before = time_ns() - int(age * 1e9) if 0 <= age < 1e9 else 0
        self._store.forget(int(_SHARE * (self._limits.nbytes - LOG_BYTES)), max(0, before))
        count, oldest_ns = self._store.size()
        self.held = Held(count, self._store.used_bytes, oldest_ns)

    def _try(self, work: Callable[[], object], records: int = 0) -> None:
        """Whatever happens to the disk, the node goes on."""
        try:
            work()
            self.problem = ""
        except MobileVLMError as error:
            self._failed(str(error), records)
        except Exception as error:
            logger.exception("the memory failed")
            self._failed(f"memory {self.path}: {error!r}", records)

    def _failed(self, problem: str, records: int) -> None:
        self.dropped += records
        self.problem = problem
        self._trouble(problem)
