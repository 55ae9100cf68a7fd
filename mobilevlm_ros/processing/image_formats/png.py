# SPDX-License-Identifier: Apache-2.0
"""PNG (W3C Portable Network Graphics, third edition). Decoded by OpenCV after all checksums were checked and
the pixels were counted, which its versions do differently.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_formats import exif
from mobilevlm_ros.processing.image_formats.header import ImageHeader, damaged, truncated, unsupported

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 65536
"""In one file. libpng writes 8 KiB of data in each."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (section 11.2.1)
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Of Adam7 (section 8.1): first column and row of each pass, and the steps between them.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 1 << 20
_DEFLATE_RATIO = 1032  # deflate cannot do better (zlib's technical notes)


def read_header(data: bytes) -> ImageHeader:
    """Walks all chunks. Raises ImageError."""
    if len(data) < 33:
        truncated("PNG")
    size, end, turn, stored = (0, 0, 0), 0, 1, 0
    for number, (name, start, length) in enumerate(_chunks(data)):
        if (name == b"IHDR") != (number == 0):
            damaged("PNG", "its header is not its first chunk")
        if name == b"IHDR":
            size = _size(data[start : start + length])
        elif name == b"acTL":
            unsupported("PNG", "animated")
        elif name == b"eXIf":
            turn = exif.orientation(data[start : start + length])
        elif name == b"IDAT":
            stored += length
        end = start + length + 4
    width, height, inflated = size
    if stored * _DEFLATE_RATIO < inflated:
        damaged("PNG", f"{stored} bytes cannot hold {width}x{height} pixels")
    return ImageHeader(width, height, end, turn, width * height, data[25] == 0)


_DEPTH_AT = 24  # of the byte in IHDR that tells the bits of a sample
_DARK = 16
"""A picture of 16 bits whose upper 8 all lie below is nearly black."""


def decode(data: bytes, header: ImageHeader) -> NDArray[np.uint8]:
    """BGR u8[H, W, 3] as stored; 16 bits keep their upper 8.

    Raises ImageError, also for 10 or 12 bits in 16: all that the model would see is black.
    """
    pixels = np.asarray(_decode(data, cv2.IMREAD_COLOR), np.uint8)
    if (
        data[_DEPTH_AT] == 16
        and int(pixels.max(initial=0)) < _DARK
        and _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH).any()  # black throughout is black
    ):
        raise ImageError(
            "is nearly black: its samples use less than 12 of 16 bits; stretch them to 16 bits, or save it "
            "with 8"
        )
    return pixels


def decode_grey(data: bytes, header: ImageHeader) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The same of a picture of one channel: u8[H, W], or u16[H, W] where it has 16 bits."""
    return _decode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)


def _decode(data: bytes, mode: int) -> NDArray[Any]:
    _check(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        damaged("PNG", str(error.err))
    if pixels is None:
        damaged("PNG", "its pixels cannot be decoded")
    return np.asarray(pixels)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte of the content, its length) up to IEND."""
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            truncated("PNG")
        length, name = _u32(data, at), data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            truncated("PNG")
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + length
    unsupported("PNG", f"in more than {MAX_CHUNKS} chunks")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _size(header: bytes) -> tuple[int, int, int]:
    """(width, height, bytes of all filtered rows) of an IHDR chunk."""
    if len(header) != 13:
        damaged("PNG", "its header has a wrong length")
    width, height, depth, color, compression, filters, interlace = struct.unpack(">IIBBBBB", header)
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31) or depth not in _DEPTHS.get(color, ()):
        damaged("PNG", f"{width}x{height} pixels of {depth} bits and colour type {color}")
    if compression or filters or interlace > 1:
        damaged("PNG", "an unknown compression, filter or interlacing")
    bits = depth * _CHANNELS[color]
    if not interlace:
        return width, height, height * (1 + -(-width * bits // 8))
    total = 0
    for left, top, across, down in _PASSES:
        columns, rows = max(0, -(-(width - left) // across)), max(0, -(-(height - top) // down))
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return width, height, total


def _check(data: bytes) -> None:
    """Compares all checksums and counts the bytes of the rows, a piece at a time. Raises ImageError."""
    stream, total, expected = zlib.decompressobj(), 0, 0
    view = memoryview(data)
    try:
        for name, start, length in _chunks(data):
            if zlib.crc32(view[start - 4 : start + length]) != _u32(data, start + length):
                damaged("PNG", f"a wrong checksum at byte {start + length}")
            if name == b"IHDR":
                expected = _size(data[start : start + length])[2]
            if name != b"IDAT" or not length:
                continue
            if stream.eof:
                damaged("PNG", "more data than its pixels")
            total += len(stream.decompress(view[start : start + length], _PIECE))
            while stream.unconsumed_tail and total <= expected:
                total += len(stream.decompress(stream.unconsumed_tail, _PIECE))
            if total > expected or stream.unused_data:
                damaged("PNG", "more data than its pixels")
    except zlib.error as error:
        damaged("PNG", str(error))
    if total != expected or not stream.eof:
        damaged("PNG", f"{total} of {expected} bytes of its pixels")
