# SPDX-License-Identifier: Apache-2.0
"""Writes what was said about a picture onto it: the overlay of ~/annotated_image, and the demo's picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.processing.lettering import put_text, text_width

U8 = NDArray[np.uint8]
Color = tuple[int, int, int]

WHITE: Color = (245, 245, 245)
GREY: Color = (168, 172, 178)
GREEN: Color = (96, 211, 124)
RED: Color = (238, 102, 92)
BLUE: Color = (120, 178, 255)
INK: Color = (24, 26, 30)

DIM: Color = (112, 116, 122)

_SHADE = 0.72  # how much a band darkens the picture under it
_SMALLEST = 0.5  # scale; smaller letters of this font cannot be read
_SHARE = 0.45  # of the picture's height that a band covers at most


@dataclass(frozen=True)
class Line:
    """A line of text in RGB; `mark` True or False puts a green tick or a red cross before it. `end` follows
    the text, and stays where a long text is cut.
    """

    text: str
    color: Color = WHITE
    mark: bool | None = None
    end: str = ""


@dataclass(frozen=True)
class Lamp:
    """A lamp and its label: filled while `lit`, else a ring."""

    label: str
    color: Color
    lit: bool = True


def overlay(
    image: U8, top: Sequence[Line] = (), bottom: Sequence[Line] = (), lamps: Sequence[Lamp] = ()
) -> U8:
    """A copy of RGB u8[H, W, 3] with lines on darkened bands at its upper and lower edge, lamps above the
    upper ones. Long lines are wrapped; what would cover too much of the picture is cut.
    """
    picture = np.ascontiguousarray(image).copy()
    height, width = picture.shape[:2]
    scale = _scale(width)
    most = max(1, int(_SHARE * height - 16 * scale) // _line_height(scale))
    rows = _rows(lamps, width, scale)[:most]
    for lines, above, at_bottom in ((top, rows, False), (bottom, [], True)):
        wrapped = _fit(lines, width, scale, max(0 if above else 1, most - len(above)))
        count = len(above) + len(wrapped)
        tall = min(height, _height(count, scale)) if count else 0
        if tall < 1:
            continue
        start = height - tall if at_bottom else 0
        band = picture[start : start + tall]
        band[:] = (band * (1 - _SHADE) + np.array(INK) * _SHADE).astype(np.uint8)
        for index, row in enumerate(above):
            _light(band, row, index, scale)
        _write(band, wrapped, scale, len(above))
    return picture


def transcript(image: U8, lines: Sequence[Line]) -> U8:
    """RGB u8[H + h, W, 3]: the picture with the lines on a panel below it."""
    width = image.shape[1]
    scale = _scale(width)
    wrapped = [row for line in lines for row in _wrap(line, width, scale)]
    panel = np.full((_height(len(wrapped), scale), width, 3), INK, np.uint8)
    _write(panel, wrapped, scale)
    return np.concatenate((image, panel))


def _scale(width: int) -> float:
    return min(2.0, max(_SMALLEST, width / 1280))


def _line_height(scale: float) -> int:
    return round(34 * scale)


def _height(lines: int, scale: float) -> int:
    return lines * _line_height(scale) + round(16 * scale)


def _size(scale: float) -> int:
    return max(8, round(24 * scale))


def _text_width(text: str, scale: float) -> int:
    return text_width(text, _size(scale))


def _put(canvas: U8, text: str, at: tuple[int, int], color: Color, scale: float) -> None:
    put_text(canvas, text, at, color, _size(scale))


def _plain(text: str) -> str:
    """One line; a question mark shows where something stood that cannot be printed."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def _pieces(text: str, room: int, scale: float) -> list[str]:
    """The words of a text; those that are wider than a line in parts, as languages without spaces need."""
    pieces = []
    for word in _plain(text[:2000]).split(" "):
        while len(word) > 1 and _text_width(word, scale) > room:
            count = next((n for n in range(len(word) - 1, 1, -1) if _text_width(word[:n], scale) <= room), 1)
            pieces.append(word[:count])
            word = word[count:]
        pieces.append(word)
    return pieces


def _wrap(line: Line, width: int, scale: float) -> list[Line]:
    """A line in rows no wider than the picture; words that do not fit alone are cut by its edge."""
    result: list[Line] = []
    current, room = "", _room(line, width, scale)
    for word in _pieces(f"{line.text[:1900]} {line.end}" if line.end else line.text, room, scale):
        longer = f"{current} {word}" if current else word
        if current and _text_width(longer, scale) > room:
            result.append(Line(current, line.color, None if result else line.mark))
            current = word
        else:
            current = longer
    return [*result, Line(current, line.color, None if result else line.mark)]


def _room(line: Line, width: int, scale: float) -> int:
    indent = _indent(scale) if line.mark is not None else 0
    return max(1, width - round(24 * scale) - indent)


def _fit(lines: Sequence[Line], width: int, scale: float, most: int) -> list[Line]:
    """The lines in at most so many rows: the longest are cut first, and dots show it."""
    wrapped = [_wrap(line, width, scale) for line in lines]
    keep = [len(rows) for rows in wrapped]
    while sum(keep) > most and max(keep, default=0) > 1:
        keep[keep.index(max(keep))] -= 1
    result: list[Line] = []
    for line, rows, count in zip(lines, wrapped, keep):
        if count < len(rows):
            end = f"... {line.end}".rstrip()
            text, room = rows[count - 1].text, _room(line, width, scale)
            while text and _text_width(text + end, scale) > room:
                text = text[:-1]
            rows = [*rows[: count - 1], Line(text + end, line.color, rows[count - 1].mark)]
        result += rows
    return result[:most]


def _rows(lamps: Sequence[Lamp], width: int, scale: float) -> list[list[tuple[int, Lamp]]]:
    """Lamps with their left edges, as many to a row as fit."""
    rows: list[list[tuple[int, Lamp]]] = []
    left = edge = round(12 * scale)
    for lamp in lamps:
        wide = _indent(scale) + _text_width(_plain(lamp.label), scale) + round(28 * scale)
        if not rows or (left > edge and left + wide > width):
            rows.append([])
            left = edge
        rows[-1].append((left, lamp))
        left += wide
    return rows


def _light(canvas: U8, row: Sequence[tuple[int, Lamp]], index: int, scale: float) -> None:
    step = _line_height(scale)
    baseline = round(8 * scale) + index * step + round(step * 0.75)
    radius = max(4, round(9 * scale))
    for left, lamp in row:
        center = (left + radius, baseline - round(8 * scale))
        thick = cv2.FILLED if lamp.lit else max(1, round(2 * scale))
        cv2.circle(canvas, center, radius, lamp.color, thick, cv2.LINE_AA)
        at = (left + _indent(scale), baseline)
        _put(canvas, _plain(lamp.label), at, WHITE, scale)


def _thickness(scale: float) -> int:
    return max(1, round(1.6 * scale))


def _indent(scale: float) -> int:
    return round(34 * scale)


def _write(canvas: U8, lines: Sequence[Line], scale: float, first: int = 0) -> None:
    """Lines from row number `first` on."""
    step, left = _line_height(scale), round(12 * scale)
    for index, line in enumerate(lines, first):
        baseline = round(8 * scale) + index * step + round(step * 0.75)
        x = left
        if line.mark is not None:
            _mark(canvas, (left, baseline), line.mark, scale)
            x += _indent(scale)
        _put(canvas, line.text, (x, baseline), line.color, scale)


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
