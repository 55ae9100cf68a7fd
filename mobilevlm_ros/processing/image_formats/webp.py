# SPDX-License-Identifier: Apache-2.0
"""WebP (RFC 9649), decoded by OpenCV. It has no checksum, and its arithmetic coder makes pixels of any bytes:
zeros in place of the data pass. A decoder that has lost its place needs more or fewer bytes than there are,
so we look whether it needs the last ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.processing.image_formats import exif
from mobilevlm_ros.processing.image_formats.header import ImageHeader, damaged, truncated, unsupported

MAX_CHUNKS = 256

_SPARE = 6
"""Bytes that an encoder may leave over at the end of a partition. libwebp was seen to leave up to 3."""

_LEAST = 40
"""Bytes of a frame from which on that is looked at; OpenCV wants 32 of any file."""

_Chunk = tuple[bytes, int, int]


def is_webp(data: bytes) -> bool:
    """Whether the first bytes are those of a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_header(data: bytes) -> ImageHeader:
    """Walks all chunks. Raises ImageError."""
    canvas, size, turn = None, None, 1
    for name, start, length in _chunks(data):
        content = data[start : start + min(length, 32)]
        if name == b"VP8X":
            if len(content) < 10:
                damaged("WebP", "its header is cut")
            if content[0] & 0x02:
                unsupported("WebP", "animated")
            canvas = 1 + _le(content, 4, 3), 1 + _le(content, 7, 3)
        elif name in (b"VP8 ", b"VP8L"):
            if size is not None:
                damaged("WebP", "it has two pictures")
            size = (_vp8_size if name == b"VP8 " else _vp8l_size)(content, length)
        elif name in (b"ANIM", b"ANMF"):
            unsupported("WebP", "animated")
        elif name == b"EXIF":
            turn = exif.orientation(data[start : start + length])
    if size is None:
        damaged("WebP", "it has no picture")
    if canvas not in (None, size):
        damaged("WebP", "its picture is not of the size of its canvas")
    return ImageHeader(*size, 8 + _le(data, 4, 4), turn, size[0] * size[1])


def decode(data: bytes, header: ImageHeader) -> NDArray[np.uint8]:
    """BGR u8[H, W, 3] as stored. Raises ImageError."""
    bgr = _decode(data)
    if bgr is None:
        damaged("WebP", "its pixels cannot be decoded")
    for shorter in _shortened(data):
        if _decode(shorter) is not None:
            damaged("WebP", "part of its data is missing or overwritten")
    return bgr


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if bgr is None else np.asarray(bgr, np.uint8)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """(name, first byte of the content, its length) up to the end that the file states."""
    end = 8 + _le(data, 4, 4)
    if len(data) < max(20, end):
        truncated("WebP")
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > end:
            return
        length = _le(data, at + 4, 4)
        if at + 8 + length > end:
            damaged("WebP", f"its chunk at byte {at} is longer than the file")
        yield data[at : at + 4], at + 8, length
        at += 8 + length + length % 2
    unsupported("WebP", f"in more than {MAX_CHUNKS} chunks")


def _le(data: bytes, at: int, count: int) -> int:
    return int.from_bytes(data[at : at + count], "little")


def _vp8_size(head: bytes, length: int) -> tuple[int, int]:
    """Width and height of a key frame (RFC 6386, section 9.1)."""
    if length < 10 or head[0] & 1 or head[3:6] != b"\x9d\x01\x2a":
        damaged("WebP", "its frame has no header")
    if 10 + (_le(head, 0, 3) >> 5) > length:
        damaged("WebP", "its first partition is longer than the frame")
    width, height = _le(head, 6, 2) & 0x3FFF, _le(head, 8, 2) & 0x3FFF
    if not (width and height):
        damaged("WebP", f"{width}x{height} pixels")
    return width, height


def _vp8l_size(head: bytes, length: int) -> tuple[int, int]:
    """Width and height of a lossless picture (RFC 9649, section 3.4)."""
    if length < 5 or head[0] != 0x2F:
        damaged("WebP", "its lossless picture has no header")
    bits = _le(head, 1, 4)
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


def _shortened(data: bytes) -> Iterator[bytes]:
    """The picture with _SPARE bytes less in its first and in its last partition; neither can be decoded when
    the picture is whole.
    """
    for name, start, length in _chunks(data):
        frame = data[start : start + length]
        if length < _LEAST:
            continue
        if name == b"VP8 ":
            tag = _le(frame, 0, 3)
            first = tag >> 5  # bytes of the first partition (RFC 6386, section 9.1)
            if first > _SPARE:
                tag = (tag & 31) | (first - _SPARE) << 5
                yield _riff(
                    name, tag.to_bytes(3, "little") + frame[3 : 10 + first - _SPARE] + frame[10 + first :]
                )
            if length - first - 10 > _SPARE:
                yield _riff(name, frame[:-_SPARE])
        elif name == b"VP8L":
            yield _riff(name, frame[:-_SPARE])


def _riff(name: bytes, frame: bytes) -> bytes:
    """A file with this frame alone."""
    chunk = name + len(frame).to_bytes(4, "little") + frame + b"\0" * (len(frame) % 2)
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk
