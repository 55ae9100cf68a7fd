# SPDX-License-Identifier: Apache-2.0
"""Files and directories appear whole or not at all, and nothing that a user owns is lost.

Whatever this package writes for a user goes through here. The rules:

- What is at the path stays until the new thing is whole and on the disk. Killed at any moment, the path names
  the old or the new. Where the kernel cannot exchange two directories in one step, there is a moment without
  either; the next writer then puts the old one back, and readers are told its name.
- What is there is replaced only when asked, or when it is the same writer's own. A directory is replaced only
  when everything in it is of its kind: files of others in it are named in the refusal.
- A link stays a link: what it leads to is replaced. Permissions stay.
- Only regular files and directories are written: never a device, a pipe or a socket.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mobilevlm_ros.errors import MobileVLMError, OutputError
from mobilevlm_ros.files.rename import rename_new
from mobilevlm_ros.files.workplace import workplace

Error = type[OutputError]


def check_file(
    path: Path,
    *,
    overwrite: bool = False,
    ours: Callable[[Path], bool] | None = None,
    error: Error = OutputError,
) -> Path:
    """Where a file called `path` will lie, links followed; for a check before long work.

    `ours` tells whether the file that is there is the writer's own, to be replaced without being asked.
    Raises `error` when something is there that may not be replaced, or nothing can be written there.
    """
    target = _free_for_file(path, overwrite, ours, error)
    check_place(path, error=error)
    return target


def check_place(path: Path, *, parents: bool = False, error: Error = OutputError) -> None:
    """Raises `error` when nothing new can be written at `path`, whatever is there: it is tried.

    `parents`: missing directories above it may be made.
    """
    target = follow_links(path, error)
    above = next((place for place in target.parents if place.exists()), target.parent)
    if not above.is_dir():
        raise error(f"cannot write {path}: {above} is no directory; choose another place")
    with translated(path, error), workplace(target, parents=parents):
        pass


def _free_for_file(path: Path, overwrite: bool, ours: Callable[[Path], bool] | None, error: Error) -> Path:
    target = follow_links(path, error)
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except OSError as problem:
        raise cannot_write(path, problem, error) from problem
    if stat.S_ISDIR(mode):
        raise error(f"{path} is a directory; name a file to write")
    if not stat.S_ISREG(mode):
        raise error(f"{path} is a device, a pipe or a socket, not a file; name a file to write")
    if not overwrite and not (ours is not None and ours(target)):
        raise error(f"{path} already exists; use --overwrite to replace it, or name another file")
    if not os.access(target, os.W_OK):
        raise error(f"{path} is write-protected; allow writing to it, or name another file")
    return target


@contextmanager
def new_file(
    path: Path,
    *,
    overwrite: bool = False,
    ours: Callable[[Path], bool] | None = None,
    error: Error = OutputError,
) -> Iterator[Path]:
    """A path of the same name to write to; on leaving without an exception the file there becomes `path`.

    Arguments and errors are those of `check_file`; what goes wrong in writing is raised as `error` too.
    """
    with translated(path, error):
        target = _free_for_file(path, overwrite, ours, error)
        with workplace(target) as work:
            part = work / target.name
            yield part
            _free_for_file(path, overwrite, ours, error)
            finish(part, target, stat.S_IMODE(work.stat().st_mode) & 0o666)
            if target.exists():
                os.replace(part, target)
            else:
                rename_new(part, target)
            sync(target.parent)


def write_file(
    path: Path,
    content: bytes,
    *,
    overwrite: bool = False,
    ours: Callable[[Path], bool] | None = None,
    error: Error = OutputError,
) -> None:
    """Writes a whole file. Arguments and errors are those of `check_file`."""
    with new_file(path, overwrite=overwrite, ours=ours, error=error) as part:
        part.write_bytes(content)


def make_directory(path: Path, error: Error = OutputError) -> None:
    """Makes a directory and those above it, where they are missing. Raises `error`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise cannot_write(path, problem, error) from problem


def remove_file(path: Path) -> None:
    """Removes a file of ours, or the link to it, if it is there; never a directory. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)
        sync(path.parent)


def follow_links(path: Path, error: Error) -> Path:
    """Where `path` leads: a link stays a link, and `.` and `..` get names."""
    try:
        followed = path.is_symlink() or path.name in ("", "..")
        return path.resolve() if followed else path
    except (OSError, RuntimeError, ValueError) as problem:  # RuntimeError: links in a circle
        raise error(f"{path} cannot be followed: {problem}") from problem


def finish(part: Path, old: Path | None, mode: int) -> None:
    """Gives a file its permissions, those of `old` if it is there, and brings it to the disk."""
    if old is not None and old.exists():
        copy_owner(old, part)
    else:
        part.chmod(mode)
    sync(part)


def copy_owner(old: Path, new: Path) -> None:
    status = old.stat()
    if hasattr(os, "chown") and (status.st_uid, status.st_gid) != (new.stat().st_uid, new.stat().st_gid):
        with suppress(OSError):  # only root may
            os.chown(new, status.st_uid, status.st_gid)
    new.chmod(stat.S_IMODE(status.st_mode))


def sync(path: Path) -> None:
    """Waits until the disk has it: after a power cut a file renamed before it was written would be empty."""
    is_directory = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not is_directory:  # some network file systems cannot sync directories
            raise
    finally:
        os.close(descriptor)


@contextmanager
def translated(path: Path, error: Error) -> Iterator[None]:
    try:
        yield
    except MobileVLMError:  # some are OSErrors too
        raise
    except FileExistsError as problem:
        raise error(f"{path} has appeared meanwhile and stays; choose another place") from problem
    except OSError as problem:
        raise cannot_write(path, problem, error) from problem


def cannot_write(path: Path, problem: OSError, error: Error) -> OutputError:
    return error(f"cannot write {path}: {problem}; free space there, or choose another place")
