# SPDX-License-Identifier: Apache-2.0
"""What a memory finds, and how fast.

    python benchmarks/bags/memory.py recall --scenes 600 --json recall.json
    python benchmarks/bags/memory.py latency --rows 100000 1000000 --json latency.json

`recall` renders scenes, has nano caption each, and looks for what the rendering knows to be there: a thing
('a red ball'), a thing at a place ('a red ball on the left'), two kinds of things ('a person near the stop
sign'), and the last time a thing was seen. Which frames are right comes from the rendered truth, so a wrong
caption counts as a miss. recall@5 is the share of the right frames among the first five, of as many as can be
there: min(5, right frames). Things that are in no frame are looked for too.

`latency` fills memories with texts and searches them in this process: all texts different, and as many
different texts as nano's captions have. It tells the time on the wall and of the processor, which other
programs do not lengthen. The extension sqlite-vec is used where this Python loads it; --exact uses NumPy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.inference.assistant import CAPTION_PROMPT, Assistant
from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.memory.record import CAPTION, Query, Record
from mobilevlm_ros.memory.search import GOOD_SCORE, Searcher
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import TextVectors, vectors_of
from mobilevlm_ros.simulation.questions import PLACES, an, name
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import KINDS, PAINTS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FIRST_SEED = 8_200_000
SECOND = 1_000_000_000
Truth = frozenset[tuple[str, str, str]]
"""(kind, name, place) of each thing in a frame."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("recall", "latency"))
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = recall(args.scenes) if args.what == "recall" else latency(args.rows, args.repeats, args.exact)
    text = json.dumps({**found, "machine": f"{platform.processor()} {platform.python_version()}"}, indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n")


def recall(scenes: int) -> dict[str, Any]:
    runtime = load_runtime(threads=1)
    assistant, vectors = Assistant(runtime), vectors_of(runtime)
    truths: list[Truth] = []
    captions: list[str] = []
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        seen = observe(sample_scene(seed), 1.0)
        truths.append(frozenset((s.thing.kind, name(s), PLACES[s.thing.zone]) for s in seen.seen))
        captions.append(assistant.ask(Frame(seen.image), Request(CAPTION_PROMPT)).text)
    with tempfile.TemporaryDirectory() as folder, MemoryStore(Path(folder, "m.db"), writable=True) as store:
        store.update_vectors(vectors)
        store.add([Record(at * SECOND, "", CAPTION, text) for at, text in enumerate(captions, 1)], vectors)
        ways: dict[str, Callable[[Query], list[int]]] = {
            "words and vectors": _way(store, vectors),
            "words alone": _way(store, None),
            "vectors alone": lambda query: _by_vector(store, vectors, query),
        }
        families = dict(_families(truths))
        result: dict[str, Any] = {
            "scenes": scenes,
            "different_captions": len(set(captions)),
            "queries": {family: len(queries) for family, queries in families.items()},
        }
        for way, search in ways.items():
            result[way] = {
                family: round(float(np.mean([_recall(search, text, right) for text, right in queries])), 4)
                for family, queries in families.items()
                if family != "absent" and (family != "last" or way != "vectors alone")
            }
        searcher = Searcher(store, vectors)
        best = [[m.score for m in searcher.search(Query(text))][:1] for text, _ in families["absent"]]
        sure = [bool(scores) and scores[0] >= GOOD_SCORE for scores in best]
        result["absent_taken_for_seen"] = round(float(np.mean(sure)), 4)
        last = [
            searcher.search(Query(f"where did you last see {text}?")) != [] for text, _ in families["absent"]
        ]
        result["absent_last_seen"] = round(float(np.mean(last)), 4)
    return result


def _families(truths: Sequence[Truth]) -> Iterator[tuple[str, list[tuple[str, list[int]]]]]:
    """Queries of each family with the numbers (from 1) of the frames that are right."""

    def frames(condition: Callable[[Truth], bool]) -> list[int]:
        return [at for at, truth in enumerate(truths, 1) if condition(truth)]

    every = {thing for truth in truths for thing in truth}
    names = sorted({noun for _, noun, _ in every})
    things = [(an(noun), frames(lambda t, n=noun: any(x[1] == n for x in t))) for noun in names]
    yield "thing", things
    yield (
        "thing and place",
        [
            (f"{an(noun)} {place}", frames(lambda t, n=noun, p=place: any(x[1:] == (n, p) for x in t)))
            for noun, place in sorted({thing[1:] for thing in every})
        ],
    )
    yield (
        "two kinds",
        [
            (f"{an(one)} near the {other}", right)
            for one, other in itertools.combinations(KINDS, 2)
            if (right := frames(lambda t, a=one, b=other: {a, b} <= {x[0] for x in t}))
        ],
    )
    yield "question", [(f"Did you see {text} somewhere?", right) for text, right in things]
    yield "last", [(f"where did you last see {text}?", right[-1:]) for text, right in things]
    known = {noun for _, noun, _ in every}
    absent = [
        f"{paint} {kind}" for paint in (*PAINTS, "pink", "black") for kind in (*KINDS, "dog", "forklift")
    ]
    yield "absent", [(an(noun), []) for noun in absent if noun not in known and noun.split()[1] != "person"]


def _recall(search: Callable[[Query], list[int]], text: str, right: Sequence[int]) -> float:
    """Of the right frames, the share among the first five (the first, where only one is right)."""
    limit = 1 if text.startswith("where did you last") else 5
    found = search(Query(text, limit=limit))[:limit]
    return len(set(found) & set(right)) / min(limit, len(right))


def _way(store: MemoryStore, vectors: TextVectors | None) -> Callable[[Query], list[int]]:
    searcher = Searcher(store, vectors)
    return lambda query: [match.record.stamp_ns // SECOND for match in searcher.search(query)]


def _by_vector(store: MemoryStore, vectors: TextVectors, query: Query) -> list[int]:
    rows = store.connection.execute(
        "SELECT stamp_ns, vector FROM records JOIN vectors USING (text_id)"
    ).fetchall()
    table = np.frombuffer(b"".join(row[1] for row in rows), np.int8).reshape(len(rows), -1)
    similar = table.astype(np.float32) @ vectors.vector(query.text)
    return [rows[i][0] // SECOND for i in np.argsort(-similar, kind="stable")[: query.limit]]


def latency(counts: Sequence[int], repeats: int, exact: bool) -> dict[str, Any]:
    vectors = vectors_of(load_runtime(threads=1))
    result: dict[str, Any] = {}
    for rows, kind in itertools.product(counts, ("all different", "as nano's")):
        with tempfile.TemporaryDirectory() as folder:
            result[f"{rows} rows, {kind}"] = _latency(
                Path(folder, "m.db"), rows, kind, vectors, repeats, exact
            )
            print(json.dumps(result), file=sys.stderr, flush=True)
    return result


QUERIES = {
    "a description": Query("a red ball on the left"),
    "a question": Query("where did you last see a person in blue?"),
    "a rare word": Query("number 10004711"),
    "what is not there": Query("an elephant in the kitchen"),
    "one camera, one minute": Query(
        "a red ball", camera="front", start_ns=5000 * SECOND, end_ns=5060 * SECOND
    ),
    "one camera": Query("a red ball", camera="front"),
    "the newest": Query(),
}


def _latency(
    path: Path, rows: int, kind: str, vectors: TextVectors, repeats: int, exact: bool
) -> dict[str, Any]:
    different = kind == "all different"
    with MemoryStore(path, writable=True) as store:
        store.update_vectors(vectors)
        told: dict[str, Any] = {"rows_per_cpu_second_written": _write(store, vectors, different)}
        _fill(store, vectors.width, rows, different)
    told["file_mb"] = path.stat().st_size >> 20
    with MemoryStore(path) as store:
        (told["different_texts"],) = store.connection.execute("SELECT count(*) FROM texts").fetchone()
        searcher = Searcher(store, vectors, exact)
        told["vectors_by"] = searcher.engine
        for what, query in QUERIES.items():
            wall, cpu = [], []
            for _ in range(repeats):
                begin, worked = perf_counter(), process_time()
                searcher.search(query)
                wall.append(1000 * (perf_counter() - begin))
                cpu.append(1000 * (process_time() - worked))
            told[what] = {
                "first_ms": round(wall[0], 1),
                "median_ms": round(float(np.median(wall)), 1),
                "cpu_ms": round(float(np.median(cpu)), 1),
            }
    told["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return told


def _write(store: MemoryStore, vectors: TextVectors, different: bool, count: int = 2000) -> int:
    """Rows per second of the processor, written as `mobilevlm index` and the node do."""
    texts = _texts(different)
    records = [Record(at * SECOND, "written", CAPTION, next(texts)) for at in range(count)]
    begin = process_time()
    store.add(records, vectors)
    return round(count / (process_time() - begin))


def _fill(store: MemoryStore, width: int, rows: int, different: bool) -> None:
    """Many rows at once, past the model: their vectors are random, which takes as long to search."""
    texts, run = _texts(different, 10_000_000), store.connection
    random = np.random.default_rng(1)
    known: dict[str, int] = {}
    first_id = 1 + (run.execute("SELECT max(id) FROM texts").fetchone()[0] or 0)
    for first in range(0, rows, 50_000):
        new: list[tuple[int, str, str]] = []
        used: list[int] = []
        for text in itertools.islice(texts, min(50_000, rows - first)):
            number = known.get(text)
            if number is None:
                number = first_id + len(known)
                known[text] = number
                new.append((number, text, text))
            used.append(number)
        packed = random.integers(-40, 40, (len(new), width), np.int8)
        with store.transaction():
            run.executemany("INSERT OR IGNORE INTO texts (id, shown, searched) VALUES (?, ?, ?)", new)
            run.executemany(
                "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                [(n[0], v.tobytes()) for n, v in zip(new, packed)],
            )
            run.executemany(
                "INSERT INTO records (text_id, stamp_ns, camera, kind, confidence, question, answer,"
                " model_id, frame_id, topic, bag, kept_ns)"
                " VALUES (?, ?, ?, 'caption', 1, '', '', '', '', '', '', 1)",
                [(n, at * SECOND, ("front", "rear")[at % 2]) for at, n in enumerate(used, first)],
            )


def _texts(different: bool, first: int = 0) -> Iterator[str]:
    """Captions like nano's, of one to three things."""
    random = np.random.default_rng(0)
    things = [f"a person in {paint}" for paint in PAINTS]
    things += [f"{an(f'{paint} {kind}')}" for paint in PAINTS for kind in KINDS if kind != "person"]
    places = list(PLACES.values())
    for number in itertools.count(first):
        count = int(random.integers(1, 4))
        parts = [f"{things[random.integers(len(things))]} {places[random.integers(3)]}" for _ in range(count)]
        text = " and ".join(parts)
        yield f"{text[0].upper()}{text[1:]}{f', number {number}' if different else ''}."


if __name__ == "__main__":
    main()
