# SPDX-License-Identifier: Apache-2.0
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mobilevlm_ros.errors import MemoryFileError
from mobilevlm_ros.memory import store as module
from mobilevlm_ros.memory.record import CAPTION, Query, Record
from mobilevlm_ros.memory.search import Searcher
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import TextVectors


def records(count: int, first: int = 0) -> list[Record]:
    return [Record(at, "front", CAPTION, f"A dog number {at % 50}.") for at in range(first, first + count)]


def test_the_same_again_adds_nothing(tmp_path: Path, vectors: TextVectors) -> None:
    path = tmp_path / "memory.db"
    for expected in (100, 0):
        with MemoryStore(path, writable=True) as store:
            assert store.add(records(100), vectors) == expected
    with MemoryStore(path) as store:
        assert store.size() == (100, 0)
        assert store.connection.execute("SELECT count(*) FROM texts").fetchone() == (50,)


def test_what_cannot_be_a_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match="mobilevlm index"):
        MemoryStore(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text").write_text("something of the user's " * 200)
    with pytest.raises(MemoryFileError, match="another kind of file"):
        MemoryStore(tmp_path / "text", writable=True)
    assert (tmp_path / "text").read_text().startswith("something")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(MemoryFileError, match="something else"):
        MemoryStore(tmp_path / "other.db", writable=True)
    with pytest.raises(MemoryFileError, match="directory that exists"):
        MemoryStore(tmp_path / "nowhere" / "m.db", writable=True)
    with pytest.raises(MemoryFileError, match="name a file"):
        MemoryStore(tmp_path, writable=True)


def test_another_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    MemoryStore(tmp_path / "m.db", writable=True).close()
    changed = sqlite3.connect(tmp_path / "m.db")
    changed.execute("PRAGMA user_version = 7")
    changed.close()
    for writable in (True, False):
        with pytest.raises(MemoryFileError, match=r"version 7.*version 1.*mobilevlm index"):
            MemoryStore(tmp_path / "m.db", writable=writable)


def test_a_locked_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT", 0.05)
    with MemoryStore(tmp_path / "m.db", writable=True) as one, MemoryStore(tmp_path / "m.db", True) as two:
        with one.transaction(), pytest.raises(MemoryFileError, match="another job"):
            two.add(records(1), None)
        assert two.add(records(1), None) == 1, "and works once the other one is done"


KILLED = """
import sys, os, signal
from pathlib import Path
from mobilevlm_ros.memory.record import Record
from mobilevlm_ros.memory.store import MemoryStore
store = MemoryStore(Path(sys.argv[1]), writable=True)
store.add([Record(at, "", "caption", f"A cat {at}.") for at in range(500)], None)
def forever():
    for at in range(500, 10**9):
        yield Record(at, "", "caption", f"A cat {at}.")
        if at == 5000:
            os.kill(os.getpid(), signal.SIGKILL)
store.add(forever(), None)
"""


def test_a_writer_that_is_killed_leaves_what_it_committed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "m.db")], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        assert store.size()[0] == 500
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        assert [m.record.text for m in Searcher(store).search(Query("cat 499"))][:1] == ["A cat 499."]
        assert store.add(records(10), None) == 10


def test_the_oldest_go_first(tmp_path: Path, vectors: TextVectors) -> None:
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        for start in range(0, 4000, 500):
            batch = [
                Record(at, "", CAPTION, f"Dog {at}.", thumbnail=bytes(2000))
                for at in range(start, start + 500)
            ]
            store.add(batch, vectors)
        limit = 2_000_000
        assert store.forget(limit) > 0
        assert store.used_bytes <= limit
        count, oldest = store.size()
        assert 0 < count < 4000 and oldest == 4000 - count, "the newest stay"
        for table in ("texts", "vectors", "thumbnails"):
            assert store.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,)
        store.connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        searcher = Searcher(store, vectors)
        assert searcher.search(Query("dog 10")) == [] or searcher.search(Query("dog 10"))[0].score < 0.6
        assert searcher.search(Query("dog 3999"))[0].record.stamp_ns == 3999
        size = (tmp_path / "m.db").stat().st_size
        store.add(
            [Record(at, "", CAPTION, f"Cat {at}.", thumbnail=bytes(2000)) for at in range(500)], vectors
        )
        assert (tmp_path / "m.db").stat().st_size <= size, "the room of what went is used again"


def test_what_was_kept_too_long_ago_goes(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        store.add(records(3), None)
        store.connection.execute("UPDATE records SET kept_ns = 5 WHERE stamp_ns = 1")
        assert store.forget(kept_before_ns=6) == 1
        assert store.size() == (2, 0)


def test_another_models_vectors_replace_the_old(tmp_path: Path, vectors: TextVectors) -> None:
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        store.add(records(10), None)
        searcher = Searcher(store, vectors)
        assert not searcher.uses_vectors
        assert store.update_vectors(vectors) == 10
        assert searcher.uses_vectors
        assert store.update_vectors(vectors) == 0
