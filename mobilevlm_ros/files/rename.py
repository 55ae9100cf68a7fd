# SPDX-License-Identifier: Apache-2.0
"""Renames that the kernel does in one step, where it can: two paths exchanged, or nothing replaced."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

# <fcntl.h> and <linux/fs.h>; see renameat2(2), Linux 3.15 and glibc 2.28.
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What kernels and file systems say that have no such rename or no hard links."""


def exchange(first: Path, second: Path) -> bool:
    """Exchanges what two paths name, in one step. False where that cannot be done here; raises OSError."""
    return _renameat2(first, second, _EXCHANGE)


def rename_new(source: Path, target: Path) -> None:
    """Renames `source` unless `target` is there. Raises FileExistsError, OSError."""
    if _renameat2(source, target, _NOREPLACE):
        return
    if not source.is_dir():
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            os.unlink(source)
            return
    if os.path.lexists(target):  # no file system that we know gets here
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # not Linux, or an old libc
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))
