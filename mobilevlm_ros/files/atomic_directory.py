# SPDX-License-Identifier: Apache-2.0
"""Directories by the rules of `atomic`: whole or absent, and only what is ours in them is ever replaced."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.errors import OutputError
from mobilevlm_ros.files.atomic import (
    Error,
    cannot_write,
    check_place,
    copy_owner,
    finish,
    follow_links,
    sync,
    translated,
)
from mobilevlm_ros.files.rename import exchange, rename_new
from mobilevlm_ros.files.workplace import (
    DISPLACED,
    UNFINISHED,
    is_workplace,
    leftovers,
    remove_unfinished,
    unlocked,
    workplace,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DirectoryKind:
    """A kind of directory that this package writes, such as a bundle."""

    noun: str
    members: Callable[[Path], Collection[str] | None]
    """Paths, relative to the directory, of all in it that is of this kind; None when it is no such directory.
    Files that it names and that are not there do not matter."""
    error: Error = OutputError
    flag: str = "--overwrite"
    """The option that asks for a replacement."""


def check_directory(path: Path, kind: DirectoryKind, *, overwrite: bool = False) -> Path:
    """Where a directory called `path` will lie, links followed; for a check before long work.

    Raises the kind's error when something is there that may not be replaced, or nothing can be written there.
    """
    target = _free_for_directory(path, kind, overwrite)
    check_place(path, parents=True, error=kind.error)
    return target


def _free_for_directory(path: Path, kind: DirectoryKind, overwrite: bool) -> Path:
    target = follow_links(path, kind.error)
    try:
        mode = target.stat().st_mode
        entries = os.listdir(target) if stat.S_ISDIR(mode) else []
    except FileNotFoundError:
        return target
    except OSError as problem:
        raise cannot_write(path, problem, kind.error) from problem
    if not stat.S_ISDIR(mode):
        raise kind.error(f"{path} exists and is not a directory; choose another output directory")
    if not entries:
        return target
    members = kind.members(target)
    if members is None:
        raise kind.error(f"{path} exists and is not a {kind.noun}; choose another output directory")
    if not overwrite:
        raise kind.error(
            f"{path} already exists and holds a {kind.noun}; use {kind.flag} to replace it, or choose "
            "another output directory"
        )
    if strangers := _strangers(target, members):
        raise kind.error(
            f"{path} holds {_listed(strangers)}, which is not the {kind.noun}'s and would be lost; move it "
            "away, or choose another output directory"
        )
    if not os.access(target, os.W_OK):
        raise kind.error(
            f"{path} is write-protected; allow writing to it, or choose another output directory"
        )
    return target


@contextmanager
def new_directory(path: Path, kind: DirectoryKind, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty directory to fill; on leaving without an exception it becomes `path`.

    Errors are those of `check_directory`; what goes wrong in writing is raised as the kind's error too.
    """
    with translated(path, kind.error):
        target = _free_for_directory(path, kind, overwrite)
        _recover(target, kind)
        with workplace(target, parents=True) as work:
            yield work
            for folder, _, names in os.walk(work, topdown=False):
                for name in names:
                    finish(Path(folder, name), None, stat.S_IMODE(work.stat().st_mode) & 0o666)
                sync(Path(folder))
            _free_for_directory(path, kind, overwrite)
            _put(work, target, path, kind)
            sync(target.parent)


def remove_directory(path: Path, kind: DirectoryKind) -> None:
    """Removes a directory of this kind, whole or not at all; nothing there is fine too.

    Raises the kind's error when it is another, holds files of others, or cannot be removed.
    """
    if not os.path.lexists(path):
        return
    _free_for_directory(path, kind, overwrite=True)
    with translated(path, kind.error), workplace(path) as work:
        moved = work / path.name
        os.rename(path, moved)
        if strangers := _strangers(moved, kind.members(moved) or ()):  # put there in the last moment
            os.rename(moved, path)
            raise kind.error(f"{path} holds {_listed(strangers)} now, so it stays as it was")


def interrupted_replacement(path: Path) -> Path | None:
    """The old directory of a replacement that was killed half-way, when nothing is at `path`."""
    if os.path.lexists(path):
        return None
    return next(iter(leftovers(path, DISPLACED)), None)


def _put(work: Path, target: Path, path: Path, kind: DirectoryKind) -> None:
    if not os.path.lexists(target):
        rename_new(work, target)
        return
    copy_owner(target, work)
    old = work.with_name(work.name.removesuffix(UNFINISHED) + DISPLACED)
    os.rename(work, old)  # under this name it survives us, whichever of the two it is
    try:
        exchanged = exchange(old, target)
    except BaseException:
        os.rename(old, work)
        raise
    if not exchanged:
        os.rename(old, work)
        try:
            os.rename(target, old)
            os.rename(work, target)
        except BaseException:
            if not os.path.lexists(target):
                os.rename(old, target)
            raise
    # What somebody put there in the last moment goes back to where it was.
    if strangers := _strangers(old, kind.members(old) or ()):
        if exchange(old, target):
            os.rename(old, work)
            raise kind.error(f"{path} holds {_listed(strangers)} now, so it stays as it was")
        logger.warning("%s was replaced; what others had put there is in %s", path, old)
        return
    _discard(old, kind)


def _recover(target: Path, kind: DirectoryKind) -> None:
    """Ends what a killed writer of `target` had begun."""
    for old in leftovers(target, DISPLACED):
        other = old.with_name(old.name.removesuffix(DISPLACED) + UNFINISHED)
        with unlocked(old) as free, unlocked(other) as other_free:
            if not free or not (other_free or not other.exists()):
                continue  # its writer lives
            if os.path.lexists(target):
                _discard(old, kind)
            else:
                os.rename(old, target)
                logger.warning("%s is back: replacing it had been interrupted", target)
    remove_unfinished(target)


def _discard(old: Path, kind: DirectoryKind) -> None:
    """Removes a displaced directory, but only what is of its kind."""
    members = kind.members(old) or ()
    if strangers := _strangers(old, members):
        logger.warning("%s, replaced, is kept because it holds %s", old, _listed(strangers))
        return
    doomed = old.with_name(old.name.removesuffix(DISPLACED) + UNFINISHED)
    os.rename(old, doomed)  # half of it would not be recognised any more
    for name in filter(is_workplace, os.listdir(doomed)):
        shutil.rmtree(doomed / name, ignore_errors=True)
    for member in members:
        with suppress(OSError):
            os.unlink(doomed / member)
    for folder, _, _ in os.walk(doomed, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
    if doomed.exists():
        os.rename(doomed, old)
        logger.warning("%s, replaced, is kept because not all of it could be removed", old)


def _strangers(directory: Path, members: Collection[str]) -> list[str]:
    """Relative paths in `directory` that `members` do not name."""
    known = {Path(member) for member in members}
    folders = {parent for member in known for parent in member.parents}
    found = []
    for folder, names, files in os.walk(directory):
        here = Path(folder).relative_to(directory)
        for name in list(names):
            inner = here / name
            is_link = (directory / inner).is_symlink()
            if is_workplace(name) and not is_link:
                with unlocked(directory / inner) as free:
                    if free:
                        names.remove(name)
                        continue
            if is_link and inner in known:
                continue
            if is_link or inner not in folders:
                found.append(str(inner))
                names.remove(name)
        found += [str(here / name) for name in files if here / name not in known]
    return sorted(found)


def _listed(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
