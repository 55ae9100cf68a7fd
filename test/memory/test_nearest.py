# SPDX-License-Identifier: Apache-2.0
"""sqlite-vec and NumPy find the same. Many builds of Python load no extensions; then another one is tried."""

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mobilevlm_ros.memory.record import CAPTION, Record
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import TextVectors

SCRIPT = """
import json, sqlite3, sys
import numpy as np
from mobilevlm_ros.memory.nearest import Nearest
connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE vectors (text_id INTEGER PRIMARY KEY, vector BLOB NOT NULL)")
connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)")
random = np.random.default_rng(0)
rows = random.standard_normal((400, 64))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
rows = np.rint(127 * rows).astype(np.int8)
connection.executemany("INSERT INTO vectors VALUES (?, ?)", [(i, v.tobytes()) for i, v in enumerate(rows)])
fast, exact = Nearest(connection), Nearest(connection, exact=True)
cosine = (rows[7].astype(float) @ rows.T.astype(float)) / np.linalg.norm(rows.astype(float), axis=1)
print(json.dumps({
    "engine": fast.engine,
    "found": [n.find(rows[7].tobytes(), 12) for n in (fast, exact)],
    "truth": np.argsort(-cosine, kind="stable")[:3].tolist(),
}))
"""


def interpreters() -> list[str]:
    here = [sys.executable] if hasattr(sqlite3.connect(":memory:"), "enable_load_extension") else []
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    other = shutil.which(version, path="/usr/bin")
    return here or ([other] if other else [])


def test_sqlite_vec_and_numpy_find_the_same() -> None:
    pytest.importorskip("sqlite_vec")
    pythons = interpreters()
    if not pythons:
        pytest.skip("no Python of this version loads extensions of SQLite")
    packages = [
        str(Path(importlib.util.find_spec(name).origin).parents[1]) for name in ("numpy", "sqlite_vec")
    ]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *packages])}
    done = subprocess.run(
        [pythons[0], "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["engine"] == "sqlite-vec"
    fast, exact = told["found"]
    assert fast[:3] == exact[:3] == told["truth"]
    assert len(set(fast) & set(exact)) >= 11, "lengths of 8-bit vectors differ by a thousandth"


SEARCHES = """
import json, sys
from pathlib import Path
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.memory.record import Query
from mobilevlm_ros.memory.search import Searcher
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import vectors_of
vectors = vectors_of(load_runtime(Path(sys.argv[1]), threads=1))
with MemoryStore(Path(sys.argv[2])) as store:
    searchers = [Searcher(store, vectors), Searcher(store, vectors, exact=True)]
    texts = ["red ball", "somebody", "where did you last see a car?"]
    queries = [*map(Query, texts), Query("dog", camera="a")]
    found = [[[(m.record.stamp_ns, m.record.text, round(m.score, 6)) for m in s.search(q)] for q in queries]
             for s in searchers]
    print(json.dumps({"engines": [s.engine for s in searchers], "found": found}))
"""


def test_a_memory_is_searched_alike_with_either(
    tmp_path: Path, any_bundle: Path, vectors: TextVectors
) -> None:
    pytest.importorskip("sqlite_vec")
    pythons = interpreters()
    if not pythons:
        pytest.skip("no Python of this version loads extensions of SQLite")
    things = [
        "A red ball.",
        "A person in blue.",
        "A green car ahead.",
        "A dog.",
        "A man walks.",
        "An empty road.",
    ]
    with MemoryStore(tmp_path / "m.db", writable=True) as store:
        store.update_vectors(vectors)
        store.add([Record(at, "ab"[at % 2], CAPTION, things[at % 6]) for at in range(60)], vectors)
    root, packages = str(Path(__file__).resolve().parents[2]), sysconfig.get_path("purelib")
    done = subprocess.run(
        [pythons[0], "-c", SEARCHES, str(any_bundle), str(tmp_path / "m.db")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, packages])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["engines"] == ["sqlite-vec", "numpy"]
    fast, exact = told["found"]
    assert fast == exact and fast[0][0][1] == "A red ball." and fast[2][0][1] == "A green car ahead."
