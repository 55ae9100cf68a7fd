# SPDX-License-Identifier: Apache-2.0
"""JPEG (ITU-T T.81). Decoded by libjpeg-turbo with every warning an error: libjpeg fills what a scan lacks
with grey, and otherwise only warns.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
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

MAX_SPARE = 2
"""Bytes before the end marker that some webcams leave over; what a lost packet leaves over is more."""

_SPARE = re.compile(r"(\d+) extraneous bytes before marker 0xd9")

_HOLE = bytes(16)
"""Zeros that no scan holds whose code of all zeros is not the end of a block: each block has some ones."""

_FIRST = {(1, 0): 1, (1, 1): 0}
"""Tables of annex K.3.3, which motion JPEG leaves out: (class, identifier) to the symbol of code zero."""

# Markers of table B.1.
_SOS, _EOI, _APP1, _DNL, _DHT = 0xDA, 0xD9, 0xE1, 0xDC, 0xC4
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; these three are tables
_READ = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: Huffman coded
_FILL = re.compile(rb"\xff+")
_NEXT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a marker that ends a scan: no stuffed 0xFF, no restart


class _Frame(NamedTuple):
    width: int
    height: int
    blocks: int  # of 8x8 samples, of all components
    grey: bool
    baseline: bool


def read_header(data: bytes) -> ImageHeader:
    """Walks all markers to the end of the picture. Raises ImageError."""
    at, scans, coded, turn = 2, 0, 0, 1
    frame: _Frame | None = None
    first = dict(_FIRST)
    dense = False
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
            return ImageHeader(width, height, at, turn, width * height * scans, frame.grey, dense)
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
        elif marker == _DHT:
            first.update(_first_symbols(segment))
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
            dense = _is_dense(segment, frame.baseline, first)
            hole = data.find(_HOLE, at, following.start()) if dense else -1
            if hole >= 0 and data[hole : following.start()].strip(b"\0"):
                damaged("JPEG", f"a hole of zeros at byte {hole}")
            at = following.start()
    unsupported("JPEG", f"in more than {MAX_SEGMENTS} segments")


def decode(data: bytes, header: ImageHeader) -> NDArray[np.uint8]:
    """RGB u8[H, W, 3] as stored, of a picture without what follows it. Raises ImageError."""
    return _decode(data, header, "RGB")


def decode_grey(data: bytes, header: ImageHeader) -> NDArray[np.uint8]:
    """The same of a picture of one channel: u8[H, W]."""
    return _decode(data, header, "GRAY")[..., 0]


def _decode(data: bytes, header: ImageHeader, colors: str) -> NDArray[np.uint8]:
    try:
        from simplejpeg import decode_jpeg  # loaded with the first JPEG
    except ImportError as error:
        raise ImageError("cannot be decoded without simplejpeg: pip install simplejpeg") from error
    # Some webcams pad the scan with zeros, others leave a byte or two before the end marker. Where it is
    # whole without the zeros, they were padding; where it is not, they stand for what was lost.
    body = data[:-2].rstrip(b"\0")
    stripped = body + (b"\0" if body.endswith(b"\xff") else b"") + data[-2:]
    zeros = len(data) - len(stripped)
    ways = [stripped] if header.zeros_are_damage and zeros >= len(_HOLE) else [data, stripped]
    reason = ""
    for some in ways if zeros else [data]:
        try:
            return np.asarray(decode_jpeg(some, colorspace=colors, strict=True))
        except ValueError as error:
            reason = str(error).removeprefix("Corrupt JPEG data: ")
        spare = _SPARE.fullmatch(reason)
        if spare is not None and int(spare[1]) <= MAX_SPARE:
            return np.asarray(decode_jpeg(some, colorspace=colors, strict=False))
    damaged("JPEG", reason)


def _first_symbols(segment: bytes) -> dict[tuple[int, int], int]:
    """(Class, identifier) of a Huffman table to its first symbol, whose code is all zeros (T.81, B.2.4.2)."""
    found, at = {}, 0
    while at + 17 < len(segment):  # what is damaged here, the decoder refuses
        found[segment[at] >> 4, segment[at] & 15] = segment[at + 17]
        at += 17 + sum(segment[at + 1 : at + 17])
    return found


def _is_dense(scan: bytes, baseline: bool, first: Mapping[tuple[int, int], int]) -> bool:
    """Whether no encoder writes many zeros in this scan (its header: T.81, B.2.3): the code of all zeros is
    not the end of a block of some component, so a block in which nothing happens holds some ones. Progressive
    scans may hold long runs of correction bits.
    """
    tables = scan[2 : 1 + 2 * scan[0] : 2] if scan else b""
    return baseline and any(first.get((1, table & 15), 0) for table in tables)


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
    baseline = marker != 0xC2
    if count == 1:
        return _Frame(width, height, -(-width // 8) * -(-height // 8), True, baseline)
    across, down = 8 * max(h for h, _ in factors), 8 * max(v for _, v in factors)
    units = -(-width // across) * -(-height // down)
    return _Frame(width, height, units * sum(h * v for h, v in factors), False, baseline)
