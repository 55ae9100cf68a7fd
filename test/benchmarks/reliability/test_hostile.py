# SPDX-License-Identifier: Apache-2.0
"""benchmarks/reliability/hostile.py: a few cases of every entry point, and what must count as a fault."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from tqdm import tqdm

pytest.importorskip("gguf", reason="one entry point reads GGUF files")
sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "reliability"))

import hostile
from hostile_inputs import ENTRIES, Entry

from mobilevlm_ros.errors import LONGEST_MESSAGE, CheckpointError, ImageError

# Cases that were faults once: a name longer than a file system's, a path with a NUL, a piece without UTF-8,
# errors that grew with the input, a tensor without numbers.
FOUND = [
    ("manifests", 1042),
    ("configs", 381),
    ("tokenizers", 405),
    ("questions", 170),
    ("monitors", 3),
    ("configs", 168),
    ("gguf", 4713),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_each_entry_point_takes_or_refuses(nano: Path, entry: Entry) -> None:
    options = argparse.Namespace(first=10**6, cases=60, seconds=60.0, megabytes=4096.0)
    tally = hostile.attack(entry, options, tqdm(disable=True))
    assert tally.faults == [] and tally.cases == 60
    assert tally.counts["refused"] + tally.counts["taken"] == 60


@pytest.mark.parametrize(("name", "case"), FOUND)
def test_what_was_found_stays_mended(name: str, case: int) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    with pytest.raises(hostile.MobileVLMError) as caught:
        hostile.feed(entry, case)
    assert len(str(caught.value)) <= LONGEST_MESSAGE


def _crash(_: random.Random) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _untyped(_: random.Random) -> None:
    raise KeyError("x")


def _slow(_: random.Random) -> None:
    time.sleep(0.05)


def _hang(_: random.Random) -> None:
    time.sleep(600)


@pytest.mark.parametrize(
    ("run", "told"), [(_crash, "ended the process"), (_untyped, "KeyError"), (_slow, "took"), (_hang, "hung")]
)
def test_a_fault_is_counted_and_the_rest_goes_on(monkeypatch, run, told: str) -> None:
    monkeypatch.setattr(hostile, "GRACE", 0.5)

    def now_and_then(rng: random.Random) -> None:
        case = getattr(rng, "case", None)
        if case == 1:
            run(rng)
        raise ImageError("as it should be")

    def feed(entry: Entry, case: int) -> object:
        rng = random.Random(case)
        rng.case = case  # type: ignore[attr-defined]
        return entry.run(rng)

    monkeypatch.setattr(hostile, "feed", feed)
    options = argparse.Namespace(first=0, cases=3, seconds=0.02, megabytes=4096.0)
    tally = hostile.attack(Entry("x", "x", now_and_then), options, tqdm(disable=True))
    assert tally.cases == 3 and tally.faults[0][0] == 1 and told in tally.faults[0][1]


def test_an_error_does_not_grow_with_what_it_quotes() -> None:
    text = str(CheckpointError(f"{'x' * 10**6} cannot be read: copy it again"))
    assert len(text) == LONGEST_MESSAGE and text.endswith("copy it again") and " ... " in text
