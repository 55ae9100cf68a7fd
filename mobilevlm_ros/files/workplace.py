# SPDX-License-Identifier: Apache-2.0
"""Where something new is written before it appears: a hidden directory beside its target.

It is called `.NAME-xxxxxxxx.mobilevlm` and locked while its writer lives. What a killed writer left is
unlocked, and the next writer of the same target removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".mobilevlm"
DISPLACED = ".mobilevlm-old"
"""A whole directory that is about to be, or has been, replaced: see atomic.new_directory."""

_NAME = re.compile(r"\..+-[0-9a-f]{8}\.mobilevlm(-old)?")
_LONGEST = 200  # bytes of a target's name that fit before what is added; file systems end at 255


def is_workplace(name: str) -> bool:
    """Whether a file name is one that only this module gives."""
    return bool(_NAME.fullmatch(name))


@contextmanager
def workplace(target: Path, parents: bool = False) -> Iterator[Path]:
    """An empty directory beside `target`, gone afterwards unless it was renamed. Raises OSError.

    With `parents` those that are missing are made, and removed again when nothing came to lie in them.
    """
    made = _make_parents(target.parent) if parents else []
    try:
        remove_unfinished(target)
        work, lock = _make(target)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            os.close(lock)
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def leftovers(target: Path, suffix: str) -> list[Path]:
    """Workplaces of `target` with this suffix, those in use included."""
    prefix = _prefix(target)
    try:
        names = sorted(entry.name for entry in os.scandir(target.parent))
    except OSError:
        return []
    size = len(prefix) + 8 + len(suffix)
    found = (n for n in names if n.startswith(prefix) and n.endswith(suffix) and len(n) == size)
    return [target.parent / name for name in found if is_workplace(name)]


def remove_unfinished(target: Path) -> None:
    """Removes what killed writers of `target` left unfinished."""
    for path in leftovers(target, UNFINISHED):
        with unlocked(path) as free:
            if free:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def unlocked(path: Path) -> Iterator[bool]:
    """Holds the lock of a leftover; False when its writer lives, or it is not there."""
    lock = _lock(path)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _make_parents(directory: Path) -> list[Path]:
    """The directories made, innermost first."""
    missing: list[Path] = []
    path = directory
    while not path.exists() and path != path.parent:
        missing.append(path)
        path = path.parent
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _make(target: Path) -> tuple[Path, int]:
    while True:
        work = target.parent / f"{_prefix(target)}{secrets.token_hex(4)}{UNFINISHED}"
        work.mkdir()  # not by tempfile, which keeps others out
        lock = _lock(work)
        if lock is not None:
            if work.exists():
                return work, lock
            os.close(lock)  # somebody took it for a leftover in the moment before it was locked


def _lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _prefix(target: Path) -> str:
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f".{name}-"
