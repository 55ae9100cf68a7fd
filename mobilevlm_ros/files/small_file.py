# SPDX-License-Identifier: Apache-2.0
"""Reads a small file that somebody named: a regular one, of bounded size, opened once."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from mobilevlm_ros.errors import ConfigurationError

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that Git put in the place of a large one whose content it did not fetch."""
LFS_ADVICE = "it only points to the content (Git LFS); fetch that with `git lfs pull`"


def expanded(path: str) -> str:
    """The path with `~` as the home directory; the same where there is none to tell."""
    return os.path.expanduser(path)


def read_small_file(path: str | Path, limit: int, what: str) -> bytes:
    """The content of a file.

    Args:
        path: may begin with `~`.
        limit: bytes; a larger file is refused.
        what: the file in a sentence, e.g. 'monitors file'.

    Raises:
        ConfigurationError: it cannot be opened, is no regular file (a pipe or a device never ends), or is too
            large.
    """
    try:
        descriptor = os.open(expanded(str(path)), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigurationError(f"{what} {path} cannot be read: {error}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError(f"{what} {path} cannot be read: it is no regular file; name one that is")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error}") from error
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise ConfigurationError(f"{what} {path} has more than {limit} bytes: is it the right one?")
    return content


def regular(path: str | Path, limit: int | None = None) -> Path:
    """The path itself, to be opened as usual.

    Raises OSError for a pipe or a device, which may never end, and for a file of more than `limit` bytes.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file; name one that is")
    if limit is not None and status.st_size > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes: is it the right one?")
    return Path(path)


def is_within(path: str, directories: Iterable[str | Path]) -> bool:
    """Whether a path lies in one of the directories, links followed."""
    real = os.path.realpath(expanded(path))
    for directory in directories:
        root = os.path.realpath(expanded(str(directory)))
        if os.path.commonpath([root, real]) == root:
            return True
    return False
