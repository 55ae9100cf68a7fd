# SPDX-License-Identifier: Apache-2.0
"""Whatever writes, on a read-only disk: an error of ours that names the place, and what was there stays."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fixtures.disks import read_only

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.tensorrt.plans import Key, PlanCache
from mobilevlm_ros.engine.tuning import keep_threads
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.evaluation.runner.journal import Journal
from mobilevlm_ros.export.bundle_directory import BUNDLE
from mobilevlm_ros.files.atomic import new_file, write_file
from mobilevlm_ros.files.atomic_directory import check_directory, new_directory, remove_directory
from mobilevlm_ros.files.json_fields import write_json
from mobilevlm_ros.memory.store import MemoryStore


@dataclass
class Disk:
    """A read-only directory with a bundle, a file and a memory in it."""

    path: Path

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def file(self) -> Path:
        return self.path / "mine.txt"

    @property
    def memory(self) -> Path:
        return self.path / "memory.db"


@pytest.fixture(scope="module")
def disk(any_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    made = Disk(tmp_path_factory.mktemp("disk"))
    shutil.copytree(any_bundle, made.bundle)
    Bundle.open(made.bundle).add_file("extra.json", b"{}")
    made.file.write_text("mine")
    with MemoryStore(made.memory, writable=True):
        pass
    with read_only(made.path):
        yield made


def _new_file(disk: Disk) -> None:
    with new_file(disk.path / "new.txt"):
        pass


def _new_directory(disk: Disk) -> None:
    with new_directory(disk.path / "new", BUNDLE):
        pass


def _replace_directory(disk: Disk) -> None:
    with new_directory(disk.bundle, BUNDLE, overwrite=True):
        pass


WRITERS: dict[str, Callable[[Disk], object]] = {
    "a new file": lambda disk: write_file(disk.path / "new.txt", b"new"),
    "a new file, piece by piece": _new_file,
    "a file again": lambda disk: write_file(disk.file, b"new", overwrite=True),
    "a JSON file": lambda disk: write_json(disk.path / "new.json", {}),
    "a new directory": _new_directory,
    "a directory below one that is not there": lambda disk: check_directory(disk.path / "a" / "b", BUNDLE),
    "a directory again": _replace_directory,
    "a directory away": lambda disk: remove_directory(disk.bundle, BUNDLE),
    "a file into a bundle": lambda disk: Bundle.open(disk.bundle).add_file("more.json", b"{}"),
    "a file out of a bundle": lambda disk: Bundle.open(disk.bundle).remove_file("extra.json"),
    "a memory": lambda disk: MemoryStore(disk.path / "new.db", writable=True),
    "more into a memory": lambda disk: _remember(disk.memory),
    "a journal": lambda disk: Journal(disk.path / "run", {}),
}


def _remember(path: Path) -> None:
    with MemoryStore(path, writable=True) as store, store.transaction():
        store.connection.execute("DELETE FROM records")


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("what", WRITERS)
def test_what_cannot_be_written_is_said_with_its_place(disk: Disk, what: str) -> None:
    before = contents(disk.path)
    with pytest.raises(MobileVLMError) as caught:
        WRITERS[what](disk)
    assert str(disk.path) in str(caught.value)
    assert contents(disk.path) == before


def test_a_memory_is_searched_where_nothing_can_be_written(disk: Disk) -> None:
    with MemoryStore(disk.memory) as store:
        assert store.connection.execute("SELECT count(*) FROM records").fetchone() == (0,)


def test_the_settings_of_tune_are_refused_with_their_place(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk.path / "cache"))
    with pytest.raises(MobileVLMError, match=str(disk.path)):
        keep_threads(Bundle.open(disk.bundle), 1, {})


def test_a_plan_that_cannot_be_kept_still_runs(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    key = Key("0" * 64, "10.0", "gpu", "8.7", "fp16", "")
    with caplog.at_level(logging.WARNING):
        assert PlanCache(disk.path / "plans").get("decoder.onnx", key, lambda: b"plan") == b"plan"
    assert str(disk.path / "plans") in caplog.text and "cannot be written" in caplog.text


def test_plans_of_a_read_only_bundle_go_to_the_users_cache(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path in PlanCache.beside(disk.bundle).folder.parents
