# SPDX-License-Identifier: Apache-2.0
"""What the plots share. Drawn with OpenCV, which serving needs anyway."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.files.atomic import check_file, write_file
from mobilevlm_ros.processing.lettering import put_text

SOFTWARE = "mobilevlm_ros"
"""Who made a PNG, as it says itself."""
_HEADER_END = 33  # bytes of a PNG's signature and its first chunk, IHDR

INK = (40, 40, 40)
"""BGR, of text and outlines."""


def write(image: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float) -> None:
    """Text on u8[H, W, 3], its left lower corner at the pixel (x, y)."""
    if not text.isascii():  # OpenCV before 5 writes question marks
        put_text(image, text, at, INK, round(30 * scale))
        return
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)


def save(image: NDArray[np.uint8], path: Path, *, overwrite: bool = False) -> None:
    """Writes u8[H, W, 3], BGR, to a picture file; a PNG says in its field `Software` that it is ours.

    Raises as `check`, and OutputError when the file cannot be written.
    """
    target = check(path, overwrite=overwrite)
    try:
        encoded, content = cv2.imencode(path.suffix, image)
    except cv2.error:
        encoded = False
    if not encoded:
        raise _cannot_write(path)
    data = content.tobytes()
    if path.suffix.lower() == ".png":
        data = data[:_HEADER_END] + _text_chunk("Software", SOFTWARE) + data[_HEADER_END:]
    write_file(target, data, overwrite=overwrite, ours=_is_ours)


def check(path: Path, *, overwrite: bool = False) -> Path:
    """The path itself, before the long work that a picture is of.

    Raises OptionError for an ending that OpenCV does not know or a directory that is not there; OutputError
    when a file is there already, unless it is such a picture of ours or with `overwrite`.
    """
    if not cv2.haveImageWriter(path.name) or not path.parent.is_dir():
        raise _cannot_write(path)
    check_file(path, overwrite=overwrite, ours=_is_ours)
    return path


def _cannot_write(path: Path) -> OptionError:
    return OptionError(
        f"cannot write the plot {path}; name a file that ends in .png, in a directory that exists"
    )


def _text_chunk(keyword: str, text: str) -> bytes:
    """A PNG's tEXt chunk (PNG specification, 11.3.3.2)."""
    body = b"tEXt" + keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            beginning = stream.read(_HEADER_END + 64)
    except OSError:
        return False
    return beginning[_HEADER_END:].startswith(_text_chunk("Software", SOFTWARE))
