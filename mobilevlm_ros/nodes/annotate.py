# SPDX-License-Identifier: Apache-2.0
"""Writes what was said about a picture onto it: the overlay of ~/annotated_image, and the demo's picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Color = tuple[int, int, int]

WHITE: Color = (245, 245, 245)
GREY: Color = (168, 172, 178)
GREEN: Color = (96, 211, 124)
RED: Color = (238, 102, 92)
BLUE: Color = (120, 178, 255)
INK: Color = (24, 26, 30)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHADE = 0.62  # how much a band darkens the picture under it


@dataclass(frozen=True)
class Line:
    """A line of text in RGB; `mark` True or False puts a green tick or a red cross before it."""

    text: str
    color: Color = WHITE
    mark: bool | None = None


def overlay(image: U8, top: Sequence[Line] = (), bottom: Sequence[Line] = ()) -> U8:
    """A copy of RGB u8[H, W, 3] with lines on darkened bands at its upper and lower edge; too long ones are
    wrapped.
    """
    picture = np.ascontiguousarray(image).copy()
    height, width = picture.shape[:2]
    scale = _scale(width)
    for lines, at_bottom in ((top, False), (bottom, True)):
        wrapped = _wrap(lines, width, scale)
        tall = min(height, _height(len(wrapped), scale)) if wrapped else 0
        if tall < 1:
            continue
        start = height - tall if at_bottom else 0
        band = picture[start : start + tall]
        band[:] = (band * (1 - _SHADE) + np.array(INK) * _SHADE).astype(np.uint8)
        _write(band, wrapped, scale)
    return picture


def transcript(image: U8, lines: Sequence[Line]) -> U8:
    """RGB u8[H + h, W, 3]: the picture with the lines on a panel below it."""
    width = image.shape[1]
    scale = _scale(width)
    wrapped = _wrap(lines, width, scale)
    panel = np.full((_height(len(wrapped), scale), width, 3), INK, np.uint8)
    _write(panel, wrapped, scale)
    return np.concatenate((image, panel))


def _scale(width: int) -> float:
    return min(2.0, max(0.35, width / 1280))


def _line_height(scale: float) -> int:
    return round(34 * scale)


def _height(lines: int, scale: float) -> int:
    return lines * _line_height(scale) + round(16 * scale)


def _ascii(text: str) -> str:
    """The Hershey fonts know nothing else; a question mark shows that something stood there."""
    return " ".join(text.split()).encode("ascii", "replace").decode("ascii")


def _wrap(lines: Sequence[Line], width: int, scale: float) -> list[Line]:
    """Lines no wider than the picture; words that do not fit alone are cut by its edge."""
    room = width - round(24 * scale)
    result: list[Line] = []
    for line in lines:
        start, current = len(result), ""
        indent = _indent(scale) if line.mark is not None else 0
        for word in _ascii(line.text).split(" "):
            longer = f"{current} {word}" if current else word
            if current and _text_width(longer, scale) > room - indent:
                result.append(Line(current, line.color, line.mark if len(result) == start else None))
                current = word
            else:
                current = longer
        result.append(Line(current, line.color, line.mark if len(result) == start else None))
    return result


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, scale * 0.8, _thickness(scale))[0][0])


def _thickness(scale: float) -> int:
    return max(1, round(1.6 * scale))


def _indent(scale: float) -> int:
    return round(34 * scale)


def _write(canvas: U8, lines: Sequence[Line], scale: float) -> None:
    step, left = _line_height(scale), round(12 * scale)
    for index, line in enumerate(lines):
        baseline = round(8 * scale) + index * step + round(step * 0.75)
        x = left
        if line.mark is not None:
            _mark(canvas, (left, baseline), line.mark, scale)
            x += _indent(scale)
        cv2.putText(
            canvas, line.text, (x, baseline), _FONT, scale * 0.8, line.color, _thickness(scale), cv2.LINE_AA
        )


def _mark(canvas: U8, at: tuple[int, int], good: bool, scale: float) -> None:
    x, y = at
    size = max(4, round(16 * scale))
    strokes = (
        [[(0.0, -0.5), (0.35, -0.1), (1.0, -1.0)]]
        if good
        else [[(0.1, -0.9), (0.9, -0.1)], [(0.1, -0.1), (0.9, -0.9)]]
    )
    for stroke in strokes:
        points = np.array([(x + dx * size, y + dy * size) for dx, dy in stroke], np.int32)
        cv2.polylines(canvas, [points], False, GREEN if good else RED, _thickness(scale) + 1, cv2.LINE_AA)
