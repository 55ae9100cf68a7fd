# SPDX-License-Identifier: Apache-2.0
"""Files that were verified once: read only while they are still what was verified, into memory of our own.

A file that is mapped changes under whoever reads it: writing into it changes answers, and cutting it off ends
the process with SIGBUS.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import BundleError
from mobilevlm_ros.files.small_file import LFS_ADVICE, LFS_POINTER

AGAIN = "copy it again, or build it again with `mobilevlm build`"

_PIECE = 1 << 20  # bytes read at a time
_MOSTLY_HOLES = 0.5
"""Part of a large file that must be data. Weights have no long runs of zeros; a file without content has."""
_LARGE = 64 << 20  # bytes; a smaller file is read in no time, whatever is in it
_MANY_PIECES = 1000  # of data between holes


class FileState(NamedTuple):
    """What the system says about a file; every write changes it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def verify(path: Path, size: int, digest: str) -> FileState:
    """The state of a file that has this size and sha256. Raises BundleError with the reason."""
    with _opened(path) as stream:
        state = FileState.of(os.fstat(stream.fileno()))
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise BundleError(f"bundle {path.parent}: {path.name} cannot be used: {LFS_ADVICE}")
        stream.seek(0)
        if state.size != size:
            raise BundleError(
                f"bundle {path.parent}: {path.name} is {state.size} bytes instead of {size} "
                f"(truncated or replaced); {AGAIN}"
            )
        if size > _LARGE and _data_bytes(stream.fileno(), size) < size * _MOSTLY_HOLES:
            raise BundleError(f"bundle {path.parent}: {path.name} is mostly holes without content; {AGAIN}")
        if _digest(stream) != digest:
            raise BundleError(
                f"bundle {path.parent}: {path.name} is damaged or altered (sha256 differs); {AGAIN}"
            )
    return state


def is_unchanged(path: Path, state: FileState) -> bool:
    """Whether the file at `path` is the one that was verified and was not written to since."""
    try:
        return FileState.of(path.stat()) == state
    except (OSError, ValueError):
        return False


@contextmanager
def reading(path: Path, state: FileState | None) -> Iterator[BinaryIO]:
    """The open file; on leaving it must still be what was verified, if it was. Raises BundleError."""
    with _opened(path) as stream:
        yield stream
        if state is not None and FileState.of(os.fstat(stream.fileno())) != state:
            raise BundleError(
                f"bundle {path.parent}: {path.name} was changed while it was loaded; "
                "load it again when the copying has ended"
            )


def read_all(path: Path, state: FileState | None) -> NDArray[np.uint8]:
    """The bytes of a file, u8 [size]. Raises BundleError, MemoryError."""
    with reading(path, state) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = np.empty(size, np.uint8)
        if _fill(stream, content) != size:
            raise BundleError(f"bundle {path.parent}: {path.name} became shorter while it was read; {AGAIN}")
        return content


def _fill(stream: BinaryIO, content: NDArray[np.uint8]) -> int:
    view, done = memoryview(content.data), 0
    while done < len(view):
        count = stream.readinto(view[done : done + (_PIECE << 6)])  # type: ignore[attr-defined]
        if not count:
            break
        done += count
    return done


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe does not hold us up
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"bundle {path.parent} is incomplete: {path.name} is missing; {AGAIN}") from error
    except OSError as error:
        raise BundleError(f"bundle {path.parent}: {path.name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"bundle {path.parent}: {path.name} is no regular file; {AGAIN}")
    with open(descriptor, "rb", buffering=0) as stream:
        try:
            yield stream
        except OSError as error:
            raise BundleError(f"bundle {path.parent}: {path.name} cannot be read: {error}") from error


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces. Raises OSError."""
    with path.open("rb", buffering=0) as stream:
        return _digest(stream)


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_PIECE))
    while count := stream.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
    return digest.hexdigest()


def _data_bytes(descriptor: int, size: int) -> int:
    """How much of a file is not a hole; all of it where the file system does not tell."""
    found, at = 0, 0
    try:
        for _ in range(_MANY_PIECES):
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            at = os.lseek(descriptor, start, os.SEEK_HOLE)
            found += at - start
            if at >= size:
                return found
        return found + size - at
    except (OSError, AttributeError) as error:
        return found if getattr(error, "errno", None) == errno.ENXIO else size  # ENXIO: only a hole follows
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
