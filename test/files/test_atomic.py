# SPDX-License-Identifier: Apache-2.0
"""Whatever happens while something is replaced, its path names the whole old one or the whole new one."""

from __future__ import annotations

import itertools
import os
import signal
import stat
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from mobilevlm_ros.errors import OutputError
from mobilevlm_ros.files import atomic_directory, rename
from mobilevlm_ros.files.atomic import check_file, new_file, write_file
from mobilevlm_ros.files.atomic_directory import DirectoryKind, interrupted_replacement, new_directory
from mobilevlm_ros.files.workplace import UNFINISHED

OLD, NEW = {"kind": "old", "sub/a": "1"}, {"kind": "new", "b": "2"}


def members(directory: Path) -> list[str] | None:
    return ["kind", "sub/a", "b"] if (directory / "kind").is_file() else None


KIND = DirectoryKind("thing", members)


def fill(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def contents(path: Path) -> dict[str, str] | str:
    if path.is_file():
        return path.read_text()
    return {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}


def replace_file(path: Path) -> None:
    write_file(path, b"new", overwrite=True)


def replace_directory(path: Path) -> None:
    with new_directory(path, KIND, overwrite=True) as work:
        fill(work, NEW)


STEPS = ("rename", "replace", "unlink", "rmdir", "link", "mkdir", "fsync", "chmod")
"""Every call that changes a directory, or brings something to the disk; and renameat2."""


def at_step(number: int, happens: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Has something happen before the `number`-th such call."""
    count = itertools.count(1)

    def counted(call):
        def wrapper(*arguments, **options):
            if next(count) == number:
                happens()
            return call(*arguments, **options)

        return wrapper

    for name in STEPS:
        patch.setattr(os, name, counted(getattr(os, name)))
    patch.setattr(rename, "_renameat2", counted(rename._renameat2))


def killed(work: Callable[[], None], number: int) -> bool:
    """Runs `work` in a process that dies before its `number`-th step; whether it got there."""
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            at_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL), patch)
            work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "no exchange"])
@pytest.mark.parametrize(
    ("replace", "old", "new"),
    [(replace_file, "old", "new"), (replace_directory, OLD, NEW)],
    ids=["file", "dir"],
)
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch, exchanges, replace, old, new):
    if not exchanges:  # as on a file system without renameat2's flags
        monkeypatch.setattr(atomic_directory, "exchange", lambda first, second: False)
    for step in itertools.count(1):
        room = tmp_path / str(step)
        room.mkdir()
        (room / "neighbour").write_text("mine")
        path = room / "it"
        if isinstance(old, str):
            path.write_text(old)
        else:
            fill(path, old)
        cut = killed(partial(replace, path), step)
        if exchanges or isinstance(old, str) or path.exists():
            assert contents(path) in (old, new)
        else:
            left = interrupted_replacement(path)
            assert left is not None and contents(left) == old
        replace(path)  # the next writer cleans up
        assert contents(path) == new
        assert sorted(entry.name for entry in room.iterdir()) == ["it", "neighbour"]
        if not cut:
            break
    assert step > 5


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "no exchange"])
def test_ctrl_c_at_any_moment_leaves_the_old_or_the_new_at_the_path(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(atomic_directory, "exchange", lambda first, second: False)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for step in itertools.count(1):
        path = tmp_path / str(step) / "it"
        fill(path, OLD)
        with pytest.MonkeyPatch.context() as patch:
            at_step(step, interrupt, patch)
            try:
                replace_directory(path)
            except KeyboardInterrupt:
                assert contents(path) in (OLD, NEW)
            else:
                break
    assert step > 5


def test_a_killed_directory_that_was_displaced_comes_back_with_the_next_writer(tmp_path):
    path = tmp_path / "it"
    fill(tmp_path / ".it-0123abcd.mobilevlm-old", OLD)
    fill(tmp_path / f".it-0123abcd{UNFINISHED}", NEW)
    with pytest.raises(RuntimeError), new_directory(path, KIND) as work:
        fill(work, NEW)
        raise RuntimeError
    assert contents(path) == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["it"]


def test_a_writer_that_lives_is_not_disturbed(tmp_path):
    path = tmp_path / "it"
    with new_directory(path, KIND) as first:
        fill(first, NEW)
        with pytest.raises(OutputError, match="already exists"), new_directory(path, KIND) as second:
            fill(second, OLD)
            os.rename(second, path)  # somebody else's came first
            second.mkdir()
        assert first.is_dir()
        with pytest.raises(OutputError, match="already exists"):
            check_file(path / "kind")
        os.rename(path, tmp_path / "moved")
    assert contents(path) == NEW


@pytest.mark.parametrize("name", [".it-0123abcd", "it.part", ".it.part", ".it-zzzzzzzz.mobilevlm", "it-old"])
def test_only_our_own_leftovers_are_removed(tmp_path, name):
    fill(tmp_path / name, OLD)
    replace_directory(tmp_path / "it")
    replace_file(tmp_path / "file")
    assert contents(tmp_path / name) == OLD


def test_what_others_put_there_in_the_last_moment_stays(tmp_path, monkeypatch):
    path = tmp_path / "it"
    fill(path, OLD)
    real = atomic_directory.exchange

    def late(first: Path, second: Path) -> bool:
        (second / "notes").write_text("mine")
        monkeypatch.setattr(atomic_directory, "exchange", real)
        return real(first, second)

    monkeypatch.setattr(atomic_directory, "exchange", late)
    with pytest.raises(OutputError, match="holds notes now, so it stays as it was"):
        replace_directory(path)
    assert contents(path) == {**OLD, "notes": "mine"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_permissions_stay_and_new_things_follow_the_umask(tmp_path, mode):
    file, directory = tmp_path / "f", tmp_path / "d"
    file.write_text("old")
    fill(directory, OLD)
    for path in (file, directory):
        path.chmod(mode | 0o100)
    replace_file(file)
    replace_directory(directory)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file, directory)} == {mode | 0o100}
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "new", b"")
        with new_directory(tmp_path / "new_d", KIND) as work:
            descriptor = os.open(work / "kind", os.O_CREAT | os.O_WRONLY, 0o600)  # as safetensors does
            os.close(descriptor)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new_d").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "new_d" / "kind").stat().st_mode) == 0o640


def test_links_stay_links(tmp_path):
    fill(tmp_path / "v1", OLD)
    (tmp_path / "f1").write_text("old")
    for link, to in (("d", "v1"), ("f", "f1"), ("chain", "f"), ("dangling", "f2")):
        (tmp_path / link).symlink_to(to)
    replace_directory(tmp_path / "d")
    for name in ("f", "chain", "dangling"):
        replace_file(tmp_path / name)
    assert contents(tmp_path / "v1") == NEW
    assert [contents(tmp_path / name) for name in ("f1", "f2")] == ["new", "new"]
    assert all((tmp_path / name).is_symlink() for name in ("d", "f", "chain", "dangling"))


def test_links_in_a_circle_pipes_and_devices_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("a", "pipe", "null"):
        for replace in (replace_file, replace_directory):
            with pytest.raises(OutputError, match=r"cannot |is not a directory|a pipe"):
                replace(tmp_path / name)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    for name in ("n" * 255, "é" * 127):
        replace_file(tmp_path / name)
        replace_file(tmp_path / name)
        replace_directory(tmp_path / name[:-1])
        assert contents(tmp_path / name) == "new"
    assert len(list(tmp_path.iterdir())) == 4


def test_parents_that_were_made_go_again_after_a_failure(tmp_path):
    with pytest.raises(RuntimeError), new_directory(tmp_path / "a" / "b" / "c", KIND):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        OutputError, match="cannot write"
    ):  # a file's directory is not made: it is a typing error
        write_file(tmp_path / "nowhere" / "f", b"")


@pytest.mark.parametrize("path", ["/proc/nothing", "/sys/kernel/nothing", "/dev/null/x"])
def test_places_that_cannot_be_written_are_said(path):
    for replace in (replace_file, replace_directory):
        with pytest.raises(OutputError, match=f"cannot write {path}: .*choose another place"):
            replace(Path(path))


def test_without_being_asked_only_what_is_ours_is_replaced(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "ours").write_text("ours")
    for name, replaced in (("theirs", False), ("ours", True)):
        refused = nullcontext() if replaced else pytest.raises(OutputError, match="exists; use --overwrite")
        with refused:
            write_file(tmp_path / name, b"new", ours=lambda path: path.read_text() == "ours")
        assert contents(tmp_path / name) == ("new" if replaced else "theirs")


def test_file_systems_without_such_renames_and_links_will_do(tmp_path, monkeypatch):
    def no_links(*arguments, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(rename, "_renameat2", lambda *arguments: False)
    for step in range(2):
        replace_file(tmp_path / f"f{step}")
        replace_directory(tmp_path / f"d{step}")
        monkeypatch.setattr(os, "link", no_links)
    assert [contents(tmp_path / f"f{i}") for i in range(2)] == ["new", "new"]
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError):
        rename.rename_new(tmp_path / "f0", tmp_path / "there")
    with pytest.raises(OutputError, match="appeared meanwhile"), new_file(tmp_path / "late") as part:
        part.write_text("new")
        monkeypatch.setattr(rename.os.path, "lexists", lambda path: True)
