# SPDX-License-Identifier: Apache-2.0
"""Searching a memory: candidates by words and by vectors, fused, then scored by how well they agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.memory.filters import check, filters
from mobilevlm_ros.memory.nearest import Nearest
from mobilevlm_ros.memory.record import Match, Position, Query, Record
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import SCALE, TextVectors
from mobilevlm_ros.memory.words import Wanted, agreement, negates, spellings, understand, words

CANDIDATES = 200
"""Texts that each way of looking contributes."""

MORE = 10
"""Times so many of the nearest vectors are looked at where there are filters."""

FEW = 3000
"""Texts that are all scored where the filters leave no more: looking for words would read the whole index
first. The result is that of scoring every text.
"""

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
            texts = self._ranked(wanted, query)
            if wanted.order:
                return self._by_time(texts, query, wanted.order < 0)
            return self._best(texts, query)

    def _ranked(self, wanted: Wanted, query: Query) -> list[_Scored]:
        """The texts that agree, best first."""
        few = self._few(query)
        fused = dict.fromkeys(few or (), 0.0)
        if few is None:
            for ids in self._candidates(wanted, query):
                for rank, text_id in enumerate(ids):
                    fused[text_id] = fused.get(text_id, 0.0) + 1.0 / (FUSION + rank + 1)
        scored = [
            _Scored(text_id, score, fused[text_id])
            for text_id, score in self._scores(wanted, fused)
            if score >= LEAST_SCORE
        ]
        return sorted(scored, key=lambda item: (-item.score, -item.fused, -item.text_id))

    def _few(self, query: Query) -> list[int] | None:
        """The texts that the filters leave, where those are so few that all can be scored; else None."""
        condition, values = filters(query)
        if not condition:
            return None
        rows = self._store.connection.execute(
            f"SELECT DISTINCT text_id FROM records WHERE {condition} LIMIT ?",  # nosec B608
            (*values, FEW + 1),
        ).fetchall()
        return [int(row[0]) for row in rows] if len(rows) <= FEW else None

    def _candidates(self, wanted: Wanted, query: Query) -> Iterable[list[int]]:
        every = [_any_of(spellings(term)) for term in dict.fromkeys(wanted.terms)]
        yield self._matching(f'"{wanted.phrase}"', query)
        together = self._matching(" AND ".join(every), query)
        yield together
        if len(together) < CANDIDATES and len(every) > 1:
            yield self._matching(" OR ".join(every), query)
        if self._vectors is not None and self.uses_vectors:
            packed = self._vectors.packed(" ".join(wanted.terms))
            yield self._allowed(self._nearest.find(packed, MORE * CANDIDATES), query)[:CANDIDATES]

    def _matching(self, expression: str, query: Query) -> list[int]:
        """Ids of texts that match an expression of FTS5, by bm25."""
        condition, values = filters(query, indexed=False)
        # FTS5 gives the rows in the order of their rank, so the filters look at a few hundred of them.
        where = f"AND {_EXISTS.format('words.rowid', condition)}" if condition else ""
        rows = self._store.connection.execute(
            f"SELECT rowid FROM words WHERE words MATCH ? {where} ORDER BY rank LIMIT ?",  # nosec B608
            (expression, *values, CANDIDATES),
        )
        return [int(row[0]) for row in rows]

    def _allowed(self, ids: list[int], query: Query) -> list[int]:
        """Those texts that the filters leave, in the same order."""
        condition, values = filters(query, indexed=False)
        if not condition or not ids:
            return ids
        rows = self._store.connection.execute(
            f"SELECT id FROM texts WHERE id IN ({','.join(map(str, ids))})"  # nosec B608
            f" AND {_EXISTS.format('texts.id', condition)}",
            values,
        )
        left = {int(row[0]) for row in rows}
        return [text_id for text_id in ids if text_id in left]

    def _scores(self, wanted: Wanted, ids: Iterable[int]) -> Iterable[tuple[int, float]]:
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
        condition, values = filters(query)
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
        condition, values = filters(query, indexed=False)
        order = "ASC" if oldest else "DESC"
        rows = self._store.connection.execute(
            f"SELECT {_FIELDS} FROM records WHERE text_id IN ({','.join(map(str, good))})"  # nosec B608
            f" AND {condition or 'true'} ORDER BY stamp_ns {order}, id {order} LIMIT ?",
            (*values, query.limit),
        )
        return [self._match(row, good[row[1]], query) for row in rows]

    def _best(self, texts: Sequence[_Scored], query: Query) -> list[Match]:
        condition, values = filters(query, indexed=False)
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


_EXISTS = "EXISTS (SELECT 1 FROM records WHERE text_id = {} AND {})"

_FIELDS = (
    "id, text_id, stamp_ns, camera, kind, answer, question, confidence, model_id, frame_id, topic, bag, "
    "position_frame, x, y, z"
)


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
