# SPDX-License-Identifier: Apache-2.0
"""Pictures of a memory: thumbnails, and a contact sheet of what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from unicodedata import east_asian_width

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.drawing import write
from mobilevlm_ros.memory.record import Match

THUMBNAIL_WIDTH = 160
"""Pixels; about 4 kB as JPEG."""

_QUALITY = 75
_COLUMNS, _CELL, _MARGIN, _LINES = 4, 240, 12, 5
_PICTURE = 180  # height of a picture's place
_TEXT = 18  # pixels of a line
_LETTERS = 34  # of a line
_YEAR_2001 = 1_000_000_000_000_000_000


def thumbnail(rgb: NDArray[np.uint8], width: int = THUMBNAIL_WIDTH) -> bytes:
    """A small JPEG of RGB u8[H, W, 3]; a picture that is smaller keeps its size."""
    if rgb.shape[1] > width:
        height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()


def contact_sheet(matches: Sequence[Match]) -> NDArray[np.uint8]:
    """What was found, best first, in rows: u8[H, W, 3], BGR. Without a thumbnail a place stays empty."""
    columns = max(1, min(_COLUMNS, len(matches)))
    rows = max(1, -(-len(matches) // columns))
    high = _PICTURE + _LINES * _TEXT + 2 * _MARGIN
    sheet = np.full((rows * high + _MARGIN, columns * (_CELL + _MARGIN) + _MARGIN, 3), 255, np.uint8)
    for number, match in enumerate(matches):
        top, left = number // columns * high + _MARGIN, number % columns * (_CELL + _MARGIN) + _MARGIN
        place = sheet[top : top + _PICTURE, left : left + _CELL]
        place[:] = 235
        picture = _decoded(match.record.thumbnail)
        if picture is None:
            write(place, "no picture kept", (66, _PICTURE // 2), 0.42)
        else:
            place[: picture.shape[0], : picture.shape[1]] = picture
        lines = [f"{match.score:.2f}  {time_text(match.record.stamp_ns)}", match.record.camera or "(camera)"]
        lines += _wrapped(match.record.shown, _LINES - len(lines))
        for index, line in enumerate(lines):
            write(sheet, line, (left, top + _PICTURE + (index + 1) * _TEXT), 0.4)
    return sheet


def time_text(stamp_ns: int) -> str:
    """A stamp for people: UTC, or seconds where the clock does not tell the date (a simulation's)."""
    if stamp_ns < _YEAR_2001:
        return f"{stamp_ns / 1e9:.3f} s"
    seconds, rest = divmod(stamp_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}"


def _decoded(jpeg: bytes | None) -> NDArray[np.uint8] | None:
    """BGR that fits into a place; None where there is none."""
    if not jpeg:
        return None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return None
    factor = min(_CELL / image.shape[1], _PICTURE / image.shape[0])
    size = (max(1, int(image.shape[1] * factor)), max(1, int(image.shape[0] * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _wrapped(text: str, lines: int) -> list[str]:
    """At most so many lines; a word that is wider than one is cut, as languages without spaces need."""
    made, line = [], ""
    for word in _pieces(text):
        longer = f"{line} {word}".strip()
        if line and _width(longer) > _LETTERS:
            made.append(line)
            line = word
        else:
            line = longer
    made.append(line)
    if len(made) > lines:
        last = made[lines - 1]
        while _width(last) > _LETTERS - 3:
            last = last[:-1]
        made = [*made[: lines - 1], f"{last}..."]
    return made


def _pieces(text: str) -> Iterator[str]:
    for word in text.split():
        while _width(word) > _LETTERS:
            most = next(n for n in range(len(word), 0, -1) if n == 1 or _width(word[:n]) <= _LETTERS)
            yield word[:most]
            word = word[most:]
        yield word


def _width(text: str) -> int:
    """Letters, where a wide one counts for two (Unicode Standard Annex 11)."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
