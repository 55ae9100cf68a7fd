# SPDX-License-Identifier: Apache-2.0
"""Which way up a picture is: the orientation in its EXIF block (CIPA DC-008, section 4.6.4, tag 0x0112)."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_ORIENTATION = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG
PREFIX = b"Exif\0\0"


def orientation(block: bytes) -> int:
    """1 to 8 from an EXIF block, with or without its prefix; 1 (upright) where it says nothing usable."""
    tiff = block[len(PREFIX) :] if block.startswith(PREFIX) else block
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == _ORIENTATION and kind in _INTEGERS and values == 1:
                (value,) = struct.unpack_from(order + _INTEGERS[kind], tiff, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # it points outside of itself
        pass
    return 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns and mirrors u8[H, W, 3] as stored into the picture as it was seen, contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)  # the stored rows are columns of the scene
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
