# SPDX-License-Identifier: Apache-2.0
"""sqlite-vec and NumPy find the same. Many builds of Python load no extensions; then another one is tried."""

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sqlite3, sys
import numpy as np
from mobilevlm_ros.memory.nearest import Nearest
connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE vectors (text_id INTEGER PRIMARY KEY, vector BLOB NOT NULL)")
connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT)")
connection.execute("CREATE TEMPORARY TABLE allowed (text_id INTEGER PRIMARY KEY)")
connection.executemany("INSERT INTO allowed VALUES (?)", [(i,) for i in range(0, 400, 3)])
random = np.random.default_rng(0)
rows = random.standard_normal((400, 64))
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
rows = np.rint(127 * rows).astype(np.int8)
connection.executemany("INSERT INTO vectors VALUES (?, ?)", [(i, v.tobytes()) for i, v in enumerate(rows)])
fast, exact = Nearest(connection), Nearest(connection, exact=True)
cosine = (rows[7].astype(float) @ rows.T.astype(float)) / np.linalg.norm(rows.astype(float), axis=1)
print(json.dumps({
    "engine": fast.engine,
    "found": [n.find(rows[7].tobytes(), 12, allowed) for n in (fast, exact) for allowed in (False, True)],
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
    fast, fast_among, exact, exact_among = told["found"]
    assert fast[:3] == exact[:3] == told["truth"]
    assert len(set(fast) & set(exact)) >= 11, "lengths of 8-bit vectors differ by a thousandth"
    assert fast_among[:3] == exact_among[:3] and all(i % 3 == 0 for i in fast_among + exact_among)
