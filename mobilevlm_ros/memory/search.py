# SPDX-License-Identifier: Apache-2.0
"""Searching a memory: candidates by words and by vectors, fused, then scored by how well they agree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.memory.nearest import Nearest
from mobilevlm_ros.memory.record import KINDS, Match, Position, Query, Record
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import SCALE, TextVectors
from mobilevlm_ros.memory.words import Wanted, agreement, negates, spellings, understand, words

MOST_MATCHES = 100
"""Of one search."""

LONGEST_TEXT = 2000
"""Characters of what is looked for; a question may be as long."""

CANDIDATES = 200
"""Texts that each way of looking contributes."""

FUSION = 60
"""k of reciprocal-rank fusion: sum of 1 / (k + rank) (Cormack et al., SIGIR 2009)."""

LEAST_SCORE = 0.25
"""What agrees less is not returned."""

GOOD_SHARE, GOOD_SCORE = 0.95, 0.7
"""Share of the best score, and score, from which something counts as found where the newest or oldest is
asked for. The score is that of three wanted words of four: a white ball does not pass for the last red one.
"""

SAME_SIGHT = 10_000_000_000
"""Nanoseconds: equal texts of one camera nearer to each other than this are one sight; the newest of each
sight comes before the others."""

_ALIKE_FROM, _ALIKE_COUNTS = 0.35, 0.6
"""Cosine from which another word counts in place of the wanted one, and how much of its cosine. Embeddings of
opposites and of colours lie near each other too, so it never counts as the word itself."""

_COVERAGE, _ORDER, _VECTOR = 0.55, 0.4, 0.05
"""Shares of the score."""

_NEGATED = 0.24
"""Factor of a text that says no where the question does not, or the other way round."""

_NEWEST_ROWS = 2000
"""Records of one text that are looked at."""


@dataclass(frozen=True)
class _Scored:
    text_id: int
    score: float
    fused: float


class Searcher:
    """Searches one open memory. One thread at a time.

    Args:
        store: the memory; stays open.
        vectors: of the model that the memory's vectors are of; None: words alone.
        exact: vectors by NumPy even where sqlite-vec is there.

    Attributes:
        vectors: as given.
        engine: what looks for vectors: 'sqlite-vec' or 'numpy'.
    """

    def __init__(self, store: MemoryStore, vectors: TextVectors | None = None, exact: bool = False) -> None:
        self._store = store
        self.vectors = self._vectors = vectors
        self._nearest = Nearest(store.connection, exact)
        self.engine = self._nearest.engine

    @property
    def uses_vectors(self) -> bool:
        """Whether the memory's vectors are of this model; else words alone are searched."""
        return self._vectors is not None and self._store.vector_name == self._vectors.name

    def size(self) -> tuple[int, int]:
        """How many records there are, and the stamp of the oldest."""
        return self._store.size()

    def close(self) -> None:
        """Close the memory."""
        self._store.close()

    def search(self, query: Query) -> list[Match]:
        """What matches, best first; without a text the newest first. A question for the last (first) time
        gets the newest (oldest) of what matches well.

        Raises:
            OptionError: a field that cannot be used.
            MemoryFileError: the file cannot be read.
        """
        check(query)
        with self._store.named():
            if not query.text.strip():
                return self._newest(query)
            wanted = understand(query.text)
            if not wanted.terms:  # 'the last one'
                return self._newest(query, oldest=wanted.order < 0)
            condition, values = _filters(query)
            if condition:
                self._allow(condition, values)
            texts = self._ranked(wanted, query.text, bool(condition))
            if wanted.order:
                return self._by_time(texts, query, wanted.order < 0)
            return self._best(texts, query)

    def _allow(self, condition: str, values: Sequence[Any]) -> None:
        run = self._store.connection.execute
        run("CREATE TEMPORARY TABLE IF NOT EXISTS allowed (text_id INTEGER PRIMARY KEY)")
        run("DELETE FROM allowed")
        run(f"INSERT INTO allowed SELECT DISTINCT text_id FROM records WHERE {condition}", values)  # nosec B608

    def _ranked(self, wanted: Wanted, text: str, filtered: bool) -> list[_Scored]:
        """The texts that agree, best first."""
        fused: dict[int, float] = {}
        for ids in self._candidates(wanted, text, filtered):
            for rank, text_id in enumerate(ids):
                fused[text_id] = fused.get(text_id, 0.0) + 1.0 / (FUSION + rank + 1)
        scored = [
            _Scored(text_id, score, fused[text_id])
            for text_id, score in self._scores(wanted, text, fused)
            if score >= LEAST_SCORE
        ]
        return sorted(scored, key=lambda item: (-item.score, -item.fused, -item.text_id))

    def _candidates(self, wanted: Wanted, text: str, filtered: bool) -> Iterable[list[int]]:
        every = [_any_of(spellings(term)) for term in dict.fromkeys(wanted.terms)]
        yield self._matching(f'"{wanted.phrase}"', filtered)
        together = self._matching(" AND ".join(every), filtered)
        yield together
        if len(together) < CANDIDATES and len(every) > 1:
            yield self._matching(" OR ".join(every), filtered)
        if self._vectors is not None and self.uses_vectors:
            packed = self._vectors.packed(" ".join(wanted.terms))
            yield self._nearest.find(packed, CANDIDATES, filtered)

    def _matching(self, expression: str, filtered: bool) -> list[int]:
        """Ids of texts that match an expression of FTS5, by bm25."""
        # The plus keeps SQLite from running the expression anew for each text that is allowed.
        where = "AND +rowid IN (SELECT text_id FROM allowed)" if filtered else ""
        rows = self._store.connection.execute(
            f"SELECT rowid FROM words WHERE words MATCH ? {where} ORDER BY rank LIMIT ?",  # nosec B608
            (expression, CANDIDATES),
        )
        return [int(row[0]) for row in rows]

    def _scores(self, wanted: Wanted, text: str, ids: Iterable[int]) -> Iterable[tuple[int, float]]:
        query = self._vectors.vector(" ".join(wanted.terms)) if self._vectors and self.uses_vectors else None
        marks = ",".join(map(str, ids))
        rows = self._store.connection.execute(
            "SELECT id, searched, shown, vector FROM texts LEFT JOIN vectors ON text_id = id"  # nosec B608
            f" WHERE id IN ({marks})"
        )
        for text_id, searched, shown, packed in rows:
            said = words(searched)
            coverage, order = agreement(wanted, said, self._alike)
            near = 1.0 if query is None else 0.0
            if query is not None and packed is not None:
                near = float(query @ _unpacked(packed, len(query)))
            score = coverage * (_COVERAGE + _ORDER * order + _VECTOR * min(1.0, max(0.0, near)))
            says_no = negates(said) or (shown.endswith(": clear") and "clear" not in wanted.terms)
            if says_no != wanted.negated:
                score *= _NEGATED
            yield int(text_id), score

    def _alike(self, one: str, other: str) -> float:
        if self._vectors is None:
            return 0.0
        cosine = self._vectors.alike(one, other)
        return _ALIKE_COUNTS * cosine if cosine >= _ALIKE_FROM else 0.0

    def _newest(self, query: Query, oldest: bool = False) -> list[Match]:
        condition, values = _filters(query)
        order = "ASC" if oldest else "DESC"
        rows = self._store.connection.execute(
            f"SELECT {_FIELDS} FROM records WHERE {condition or 'true'}"  # nosec B608
            f" ORDER BY stamp_ns {order}, id {order} LIMIT ?",
            (*values, query.limit),
        )
        return [self._match(row, 0.0, query) for row in rows]

    def _by_time(self, texts: Sequence[_Scored], query: Query, oldest: bool) -> list[Match]:
        least = max(GOOD_SCORE, GOOD_SHARE * max((t.score for t in texts), default=0.0))
        good = {t.text_id: t.score for t in texts if t.score >= least}
        if not good:
            return []
        condition, values = _filters(query)
        order = "ASC" if oldest else "DESC"
        rows = self._store.connection.execute(
            f"SELECT {_FIELDS} FROM records WHERE text_id IN ({','.join(map(str, good))})"  # nosec B608
            f" AND {condition or 'true'} ORDER BY stamp_ns {order}, id {order} LIMIT ?",
            (*values, query.limit),
        )
        return [self._match(row, good[row[1]], query) for row in rows]

    def _best(self, texts: Sequence[_Scored], query: Query) -> list[Match]:
        condition, values = _filters(query)
        found: list[Match] = []
        for text in texts:
            rows = self._store.connection.execute(
                f"SELECT {_FIELDS} FROM records WHERE text_id = ? AND {condition or 'true'}"  # nosec B608
                " ORDER BY stamp_ns DESC, id DESC LIMIT ?",
                (text.text_id, *values, _NEWEST_ROWS),
            ).fetchall()
            rest = query.limit - len(found)
            found += [self._match(row, text.score, query) for row in _sights(rows)[:rest]]
            if len(found) >= query.limit:
                break
        return found

    def _match(self, row: Sequence[Any], score: float, query: Query) -> Match:
        (record_id, _, stamp_ns, camera, kind, text, question, confidence, model_id, frame_id, topic, bag) = (
            row[:12]
        )
        frame, x, y, z = row[12:]
        jpeg = None
        if query.thumbnails:
            jpeg = self._store.connection.execute(
                "SELECT jpeg FROM thumbnails WHERE record_id = ?", (record_id,)
            ).fetchone()
        record = Record(
            stamp_ns, camera, kind, text, question, confidence, model_id, frame_id, topic, bag,
            None if frame is None else Position(frame, x, y, z),
            None if jpeg is None else jpeg[0],
        )  # fmt: skip
        return Match(record, score)


_FIELDS = (
    "id, text_id, stamp_ns, camera, kind, answer, question, confidence, model_id, frame_id, topic, bag, "
    "position_frame, x, y, z"
)


def check(query: Query) -> None:
    """Raises OptionError for a field that cannot be used."""
    if len(query.text) > LONGEST_TEXT or "\0" in query.text:
        raise OptionError(
            f"text has {len(query.text)} characters: give up to {LONGEST_TEXT}, none of them NUL"
        )
    if query.kind and query.kind not in KINDS:
        raise OptionError(f"kind is {query.kind[:40]!r}: choose one of {', '.join(KINDS)}, or leave it empty")
    if not 1 <= query.limit <= MOST_MATCHES:
        raise OptionError(f"limit is {query.limit}: give a number from 1 to {MOST_MATCHES}")
    if not all(map(math.isfinite, (query.x, query.y, query.radius))) or query.radius < 0:
        raise OptionError(
            f"x, y, radius are {query.x}, {query.y}, {query.radius}: give finite metres, and a radius from 0"
        )
    if query.start_ns and query.end_ns and query.start_ns > query.end_ns:
        raise OptionError("the end of the time is before its start: exchange them")


def _filters(query: Query) -> tuple[str, list[Any]]:
    """The condition on `records` in SQL, and its values; empty where everything will do."""
    parts: list[str] = []
    values: list[Any] = []
    for condition, value in (
        ("camera = ?", query.camera),
        ("kind = ?", query.kind),
        ("stamp_ns >= ?", query.start_ns),
        ("stamp_ns <= ?", query.end_ns),
    ):
        if value:
            parts.append(condition)
            values.append(value)
    if query.radius > 0:
        parts.append("(x - ?) * (x - ?) + (y - ?) * (y - ?) <= ?")
        values += [query.x, query.x, query.y, query.y, query.radius**2]
    return " AND ".join(parts), values


def _sights(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Records of one text, newest first: the newest of each sight, then the others."""
    last: dict[str, int] = {}
    first: list[Sequence[Any]] = []
    others: list[Sequence[Any]] = []
    for row in rows:
        stamp, camera = row[2], row[3]
        (others if last.get(camera, stamp + SAME_SIGHT) - stamp < SAME_SIGHT else first).append(row)
        last[camera] = stamp
    return first + others


def _any_of(spelled: Sequence[str]) -> str:
    quoted = [f'"{word}"' for word in spelled]
    return quoted[0] if len(quoted) == 1 else f"({' OR '.join(quoted)})"


def _unpacked(packed: bytes, width: int) -> NDArray[np.float32]:
    vector = np.frombuffer(packed, np.int8).astype(np.float32) / SCALE
    return vector if len(vector) == width else np.zeros(width, np.float32)
