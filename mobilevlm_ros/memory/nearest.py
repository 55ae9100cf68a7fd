# SPDX-License-Identifier: Apache-2.0
"""The texts whose vectors are nearest to one: by the extension sqlite-vec inside SQLite, or by NumPy,
with the same result, where this Python's sqlite3 loads no extensions.
"""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

_ROWS = 65536


def extension_trouble() -> str:
    """Why sqlite-vec cannot be used here; empty where it can."""
    connection = sqlite3.connect(":memory:")
    try:
        return _load(connection)
    finally:
        connection.close()


def _load(connection: sqlite3.Connection) -> str:
    """Loads sqlite-vec into a connection; why not, where it cannot."""
    if not hasattr(connection, "enable_load_extension"):
        return "this Python's sqlite3 was built without extensions"
    try:
        import sqlite_vec
    except ImportError:
        return "sqlite-vec is not installed"
    try:
        connection.enable_load_extension(True)
        sqlite_vec.load(connection)
        connection.enable_load_extension(False)
    except (sqlite3.Error, AttributeError, OSError) as error:
        return f"sqlite-vec cannot be loaded: {error}"
    return ""


class Nearest:
    """Nearest vectors of one connection. One thread at a time.

    Args:
        exact: by NumPy even where sqlite-vec is there.

    Attributes:
        engine: 'sqlite-vec' or 'numpy'.
    """

    def __init__(self, connection: sqlite3.Connection, exact: bool = False) -> None:
        self._connection = connection
        self.engine = "numpy" if exact or _load(connection) else "sqlite-vec"
        self._ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self._vectors: NDArray[np.int8] = np.zeros((0, 0), np.int8)
        self._state: tuple[object, ...] = ()

    def find(self, packed: bytes, most: int) -> list[int]:
        """Ids of the texts whose vectors have the greatest cosine with i8[D], best first.

        Args:
            packed: the vector.
            most: how many.
        """
        if not any(packed):
            return []
        if self.engine == "sqlite-vec":
            rows = self._connection.execute(
                "SELECT text_id, vec_distance_cosine(vec_int8(vector), vec_int8(?)) AS distance"
                " FROM vectors ORDER BY distance LIMIT ?",
                (packed, most),
            )
            return [int(row[0]) for row in rows]
        self._refresh()
        return self._nearest(np.frombuffer(packed, np.int8), most)

    def _nearest(self, vector: NDArray[np.int8], most: int) -> list[int]:
        if not len(self._ids):
            return []
        query = vector.astype(np.float32)
        parts = [
            self._vectors[start : start + _ROWS].astype(np.float32) @ query
            for start in range(0, len(self._ids), _ROWS)
        ]
        similar = np.concatenate(parts)
        most = min(most, len(similar))
        best = np.argpartition(-similar, most - 1)[:most]
        best = best[np.argsort(-similar[best], kind="stable")]
        return [int(self._ids[i]) for i in best]

    def _refresh(self) -> None:
        """Read the vectors that came since the last time; all of them where some went."""
        run = self._connection.execute
        (version,) = run("PRAGMA data_version").fetchone()
        count, last = run("SELECT count(*), ifnull(max(text_id), 0) FROM vectors").fetchone()
        (space,) = run("SELECT ifnull(max(value), '') FROM meta WHERE name = 'vectors'").fetchone()
        state = (space, version, self._connection.total_changes, count, last)
        if state == self._state:
            return
        if not self._state or self._state[0] != space:
            self._ids, self._vectors = self._ids[:0], self._vectors[:0]
        known = len(self._ids)
        newest = int(self._ids[-1]) if known else 0
        (older,) = run("SELECT count(*) FROM vectors WHERE text_id <= ?", (newest,)).fetchone()
        if older != known or not known:
            newest, self._ids, self._vectors = 0, self._ids[:0], self._vectors[:0]
        rows = run(
            "SELECT text_id, vector FROM vectors WHERE text_id > ? ORDER BY text_id", (newest,)
        ).fetchall()
        if rows:
            more = np.frombuffer(b"".join(row[1] for row in rows), np.int8).reshape(len(rows), -1)
            self._vectors = np.concatenate([self._vectors, more]) if len(self._vectors) else more
            self._ids = np.concatenate([self._ids, np.array([row[0] for row in rows], np.int64)])
        self._state = state
