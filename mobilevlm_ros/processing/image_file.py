# SPDX-License-Identifier: Apache-2.0
"""Picture files as arrays."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image import Pixels
from mobilevlm_ros.processing.image_decoder import MAX_BYTES, decode_image, identify

STDIN = "-"
"""Path that stands for standard input."""

PATIENCE = 10.0
"""Seconds without a byte after which a pipe is given up."""


def read_picture(path: str | Path) -> Pixels:
    """A picture file as RGB u8[H, W, 3], turned upright as its EXIF says; '-' reads standard input.

    Raises ImageError: not a file, too large, not a whole JPEG, PNG or WebP (see `decode_image`).
    """
    return decode_image(read_bytes(path), _name(path))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a picture file, of a named pipe, or of standard input for '-'. Raises ImageError.

    A device is refused, for it never ends; a pipe into which nothing comes for PATIENCE seconds as well.
    """
    try:
        if str(path) == STDIN:
            if sys.stdin.isatty():
                raise OSError(0, "nothing is piped into it, as in `camera | mobilevlm ask - QUESTION`")
            return _read(sys.stdin.fileno())
        descriptor = _open(path)
        try:
            return _read(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{_name(path)} cannot be read: {reason}") from error


def check_format(path: Path, what: str) -> None:
    """Raises ImageError, which calls the file `what`, unless its first bytes are those of a picture that can
    be read.
    """
    try:
        descriptor = _open(path)
        try:
            identify(os.read(descriptor, 32))
        finally:
            os.close(descriptor)
    except ImageError as error:
        raise ImageError(f"{what} {error}") from error
    except OSError as error:
        raise ImageError(f"{what} cannot be read: {error.strerror or error}") from error


def _open(path: str | Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us here
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is a directory" if stat.S_ISDIR(mode) else "it is a device, not a file")


def _read(descriptor: int) -> bytes:
    """Everything up to its end, and no more than MAX_BYTES."""
    pieces: list[bytes] = []
    total = 0
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while True:
        # Tells of a regular file at once, of a pipe when something came or its writer left.
        if not waiting.poll(1000 * PATIENCE):
            raise OSError(0, f"nothing came through it for {PATIENCE:.0f} s")
        piece = os.read(descriptor, 1 << 20)
        if not piece and not total and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise OSError(0, "nobody writes into this pipe")
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        total += len(piece)
        if total > MAX_BYTES:
            raise OSError(0, f"it is larger than {MAX_BYTES} bytes: make it smaller")


def _name(path: str | Path) -> str:
    return "the picture on standard input" if str(path) == STDIN else str(path)
