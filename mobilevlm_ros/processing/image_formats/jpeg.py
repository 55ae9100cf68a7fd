# SPDX-License-Identifier: Apache-2.0
"""JPEG (ITU-T T.81). Decoded by libjpeg-turbo with every warning an error: libjpeg fills what a scan lacks
with grey, and otherwise only warns.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_formats import exif
from mobilevlm_ros.processing.image_formats.header import ImageHeader, damaged, truncated, unsupported

SIGNATURE = b"\xff\xd8\xff"

MAX_SCANS = 64
"""Of a progressive JPEG; encoders write about 10. Each costs a pass over the picture."""

MAX_SEGMENTS = 4096
"""Markers in one file. Profiles and EXIF in many parts make a few hundred."""

# Markers of table B.1.
_SOS, _EOI, _APP1, _DNL = 0xDA, 0xD9, 0xE1, 0xDC
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; these three are tables
_READ = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: Huffman coded
_FILL = re.compile(rb"\xff+")
_NEXT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a marker that ends a scan: no stuffed 0xFF, no restart


class _Frame(NamedTuple):
    width: int
    height: int
    blocks: int  # of 8x8 samples, of all components
    grey: bool


def read_header(data: bytes) -> ImageHeader:
    """Walks all markers to the end of the picture. Raises ImageError."""
    at, scans, coded, turn = 2, 0, 0, 1
    frame: _Frame | None = None
    for _ in range(MAX_SEGMENTS):
        fill = _FILL.match(data, at)
        if at >= len(data):
            truncated("JPEG")
        if fill is None:
            damaged("JPEG", f"no marker at byte {at}")
        at = fill.end()
        if at >= len(data):
            truncated("JPEG")
        marker = data[at]
        at += 1
        if marker == _EOI:
            if frame is None or not scans:
                damaged("JPEG", "it has no scan")
            width, height = frame.width, frame.height
            if 8 * coded < frame.blocks:  # each block takes a Huffman code at least, which is a bit at least
                damaged("JPEG", f"{coded} bytes cannot hold {width}x{height} pixels")
            return ImageHeader(width, height, at, turn, width * height * scans, frame.grey)
        if at + 2 > len(data):
            truncated("JPEG")
        (length,) = struct.unpack_from(">H", data, at)
        segment = data[at + 2 : at + length]
        if length < 2:
            damaged("JPEG", f"a segment of {length} bytes")
        if len(segment) < length - 2:
            truncated("JPEG")
        at += length
        if marker in _FRAMES:
            if frame is not None:
                damaged("JPEG", "it has two frames")
            frame = _frame(marker, segment)
        elif marker == _DNL:
            unsupported("JPEG", "of a height that follows later (DNL)")
        elif marker == _APP1 and segment.startswith(exif.PREFIX) and turn == 1:
            turn = exif.orientation(segment)
        elif marker == _SOS:
            if frame is None:
                damaged("JPEG", "a scan without a frame")
            scans += 1
            if scans > MAX_SCANS:
                unsupported("JPEG", f"in more than {MAX_SCANS} scans")
            following = _NEXT.search(data, at)
            if following is None:
                truncated("JPEG")
            coded += following.start() - at
            at = following.start()
    unsupported("JPEG", f"in more than {MAX_SEGMENTS} segments")


def decode(data: bytes) -> NDArray[np.uint8]:
    """RGB u8[H, W, 3] as stored, of a picture without what follows it. Raises ImageError."""
    return _decode(data, "RGB")


def decode_grey(data: bytes) -> NDArray[np.uint8]:
    """The same of a picture of one channel: u8[H, W]."""
    return _decode(data, "GRAY")[..., 0]


def _decode(data: bytes, colors: str) -> NDArray[np.uint8]:
    try:
        from simplejpeg import decode_jpeg  # loaded with the first JPEG
    except ImportError as error:
        raise ImageError("cannot be decoded without simplejpeg: pip install simplejpeg") from error
    try:
        return np.asarray(decode_jpeg(data, colorspace=colors, strict=True))
    except ValueError as error:
        reason = str(error).removeprefix("Corrupt JPEG data: ")
    # Some webcams pad the scan with zeros. If it is whole without them, they were padding.
    body = data[:-2].rstrip(b"\0")
    if "extraneous" in reason and len(body) < len(data) - 2:
        stuffed = b"\0" if body.endswith(b"\xff") else b""
        try:
            return np.asarray(decode_jpeg(body + stuffed + data[-2:], colorspace=colors, strict=True))
        except ValueError:
            pass
    damaged("JPEG", reason)


def _frame(marker: int, segment: bytes) -> _Frame:
    """From a start-of-frame segment (T.81, B.2.2)."""
    if marker not in _READ:
        unsupported("JPEG", "arithmetic-coded, lossless or hierarchical")
    try:
        bits, height, width, count = struct.unpack_from(">BHHB", segment)
        factors = [(segment[6 + 3 * i + 1] >> 4, segment[6 + 3 * i + 1] & 15) for i in range(count)]
    except (struct.error, IndexError) as error:
        raise ImageError(
            "is not a picture that can be used: its JPEG is damaged (its frame is cut)"
        ) from error
    if bits != 8:
        unsupported("JPEG", f"of {bits} bits")
    if not height:
        unsupported("JPEG", "of a height that follows later (DNL)")
    if not width or count not in (1, 3, 4):
        damaged("JPEG", f"a frame of {width}x{height} pixels and {count} components")
    if not all(1 <= factor <= 4 for pair in factors for factor in pair):
        damaged("JPEG", "impossible sampling factors")
    if count == 1:
        return _Frame(width, height, -(-width // 8) * -(-height // 8), True)
    across, down = 8 * max(h for h, _ in factors), 8 * max(v for _, v in factors)
    units = -(-width // across) * -(-height // down)
    return _Frame(width, height, units * sum(h * v for h, v in factors), False)
