# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.memory import search
from mobilevlm_ros.memory.record import ANSWER, CAPTION, MONITOR, Position, Query, Record
from mobilevlm_ros.memory.search import Searcher
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import TextVectors

SECOND = 1_000_000_000

SEEN = (
    "A red ball on the left.",
    "A blue ball on the left and a red box ahead.",
    "A person in blue on the left and a stop sign on the right.",
    "The road is empty.",
    "A green car ahead.",
)


@pytest.fixture
def store(tmp_path: Path, vectors: TextVectors) -> Iterator[MemoryStore]:
    """SEEN twice, by camera 'front' at 0 to 4 s and 'rear' at 100 to 104 s, at x = stamp; and two more."""
    with MemoryStore(tmp_path / "memory.db", writable=True) as made:
        made.update_vectors(vectors)
        made.add(
            [
                Record(
                    (100 * turn + at) * SECOND,
                    ("front", "rear")[turn],
                    CAPTION,
                    text,
                    confidence=0.75,
                    frame_id="optical",
                    position=Position("odom", 100.0 * turn + at, 2.0),
                    thumbnail=b"jpeg" if at == 0 else None,
                )
                for turn in range(2)
                for at, text in enumerate(SEEN)
            ],
            vectors,
        )
        made.add(
            [
                Record(200 * SECOND, "front", ANSWER, "No.", "Is there a dog?", 0.9),
                Record(201 * SECOND, "front", MONITOR, "dog: raised", "Is a dog in the way?", 0.8),
                Record(202 * SECOND, "front", MONITOR, "dog: clear", "Is a dog in the way?", 0.2),
            ],
            vectors,
        )
        yield made


def found(store: MemoryStore, vectors: TextVectors | None, query: Query) -> list[tuple[int, str]]:
    matches = Searcher(store, vectors).search(query)
    assert [m.score for m in matches] == sorted(
        (m.score for m in matches), reverse=True
    ) or "last" in query.text
    return [(m.record.stamp_ns // SECOND, m.record.shown) for m in matches]


@pytest.mark.parametrize("with_vectors", [True, False])
def test_what_is_asked_for_comes_first(store: MemoryStore, vectors: TextVectors, with_vectors: bool) -> None:
    space = vectors if with_vectors else None
    assert found(store, space, Query("a red ball on the left"))[:2] == [(100, SEEN[0]), (0, SEEN[0])]
    assert found(store, space, Query("person near the stop sign"))[0] == (102, SEEN[2])
    assert found(store, space, Query("where did you last see a red ball?", limit=2)) == [
        (100, SEEN[0]),
        (0, SEEN[0]),
    ]
    assert found(store, space, Query("when did you first see a car", limit=1)) == [(4, SEEN[4])]
    assert found(store, space, Query("how many people", camera="front"))[0] == (2, SEEN[2])


def test_what_was_never_seen_is_not_made_up(store: MemoryStore, vectors: TextVectors) -> None:
    assert found(store, vectors, Query("an elephant")) == []
    best = Searcher(store, vectors).search(Query("a purple ball"))[0]
    assert best.score < 0.6, "half of it matches"
    for text in ("a purple ball", "a green ball", "a blue stop sign"):
        assert found(store, vectors, Query(f"where did you last see {text}?")) == []
    assert found(store, vectors, Query("a dog")) == [(201, "dog: raised")], "not 'No.', and not 'clear'"
    assert found(store, vectors, Query("was there no dog?"))[0] in [
        (200, "Is there a dog? No."),
        (202, "dog: clear"),
    ]


@pytest.mark.parametrize("few", [3000, 0])
def test_filters(store: MemoryStore, vectors: TextVectors, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they leave few texts, and where they leave many."""
    monkeypatch.setattr(search, "FEW", few)
    ball = "a red ball"
    assert found(store, vectors, Query(ball, camera="front"))[0] == (0, SEEN[0])
    assert {at for at, _ in found(store, vectors, Query(ball, start_ns=50 * SECOND))} == {100, 101}
    assert found(store, vectors, Query(ball, end_ns=SECOND // 2)) == [(0, SEEN[0])]
    assert found(store, vectors, Query(ball, x=99.0, y=2.0, radius=1.5)) == [(100, SEEN[0])]
    assert found(store, vectors, Query(ball, x=99.0, y=3.6, radius=1.5)) == [], "a circle, not a square"
    assert found(store, vectors, Query("dog", kind=CAPTION)) == []
    assert found(store, vectors, Query("where did you last see a dog", kind=MONITOR)) == [
        (201, "dog: raised")
    ]
    assert found(store, vectors, Query(ball, camera="none")) == []


def test_indexes_of_a_former_release_are_made_up_for(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        store.add([Record(1, "", CAPTION, "A dog.", position=Position("map", 1.0, 1.0))], None)
        store.connection.execute("DROP INDEX records_place")
        store.connection.execute("DROP INDEX records_kind")
    with MemoryStore(tmp_path / "m.db") as store:
        near = Query("a dog", x=1.0, y=1.0, radius=0.5, kind=CAPTION)
        assert [at for at, _ in found(store, None, near)] == [0], "found without them too"
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        plan = store.connection.execute("EXPLAIN QUERY PLAN SELECT 1 FROM records WHERE x >= 0 AND x <= 1")
        assert "records_place" in plan.fetchone()[3]


def test_without_text_the_newest_come(store: MemoryStore, vectors: TextVectors) -> None:
    matches = Searcher(store, vectors).search(Query(kind=CAPTION, limit=2))
    assert [(m.record.stamp_ns, m.record.camera, m.score) for m in matches] == [
        (104 * SECOND, "rear", 0.0),
        (103 * SECOND, "rear", 0.0),
    ]


def test_a_match_carries_what_was_kept(store: MemoryStore, vectors: TextVectors) -> None:
    searcher = Searcher(store, vectors)
    (match,) = searcher.search(Query("a red ball on the left", limit=1, thumbnails=True))
    record = match.record
    assert (record.frame_id, record.confidence, record.thumbnail) == ("optical", 0.75, b"jpeg")
    assert record.position == Position("odom", 100.0, 2.0)
    assert searcher.search(Query("a red ball on the left", limit=1))[0].record.thumbnail is None


def test_one_sight_does_not_fill_the_list(tmp_path: Path, vectors: TextVectors) -> None:
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        seconds = [*range(20), 500, 1000]
        store.add([Record(at * SECOND, "", CAPTION, "A dog.") for at in seconds], vectors)
        assert [at for at, _ in found(store, None, Query("a dog", limit=4))] == [1000, 500, 19, 18]


@pytest.mark.parametrize(
    "query",
    [
        Query("x" * 2001), Query("a\0b"), Query(kind="video"), Query(limit=0), Query(limit=101),
        Query(radius=-1.0), Query(x=float("nan"), radius=1.0), Query(start_ns=2, end_ns=1),
    ],
)  # fmt: skip
def test_bad_queries_are_refused(store: MemoryStore, query: Query) -> None:
    with pytest.raises(OptionError):
        Searcher(store).search(query)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=60))
def test_any_text_can_be_searched_and_remembered(store: MemoryStore, vectors: TextVectors, text: str) -> None:
    searcher = Searcher(store, vectors)
    if "\0" not in text:
        assert all(0.0 <= match.score <= 1.0 for match in searcher.search(Query(text)))
    store.add([Record(1, text, CAPTION, text, text)], vectors)
