# SPDX-License-Identifier: Apache-2.0
"""Text on pictures, in any alphabet that a font of the system has; one look on every OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray
from PIL import ImageFont

U8 = NDArray[np.uint8]

_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf")
_MORE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "wqy-microhei.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoEmoji-Regular.ttf",
    "Symbola_hint.ttf",
    "unifont.otf",
)
"""For letters that the first font has not, where the system has one of them (fonts-noto-cjk and the like)."""
_NO_LETTER = "\U0010ffff"  # never assigned: a font shows its sign for a missing letter


def text_width(text: str, size: int) -> int:
    """Pixels of a text in letters of `size` pixels."""
    font = _font(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return int(font.getlength(_latin(text)))
    return int(sum(its_font.getlength(part) for part, its_font in _runs(text, size)))


def put_text(canvas: U8, text: str, at: tuple[int, int], color: tuple[int, int, int], size: int) -> None:
    """Writes a text on u8[H, W, 3], from the pixel (x, y) on its baseline; `color` as the canvas has it."""
    font = _font(size)
    picture = PIL.Image.fromarray(np.ascontiguousarray(canvas))
    draw = PIL.ImageDraw.Draw(picture)
    if isinstance(font, ImageFont.FreeTypeFont):
        left = float(at[0])
        for part, its_font in _runs(text, size):
            draw.text((left, at[1]), part, fill=color, font=its_font, anchor="ls")
            left += its_font.getlength(part)
    else:
        draw.text((at[0], at[1] - 11), _latin(text), fill=color, font=font)
    canvas[:] = np.asarray(picture)


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    """DejaVu Sans where the system has it (it knows most alphabets), else the font that comes with Pillow."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1, or without FreeType
        return ImageFont.load_default()


@lru_cache(maxsize=64)
def _more_font(name: str, size: int) -> Any:
    """A font for letters that others have not; None where the system has it not."""
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _font_of(letter: str, size: int) -> Any:
    """The first font that has a letter, or the first of all."""
    first = _font(size)
    if letter.isascii() or not isinstance(first, ImageFont.FreeTypeFont):
        return first
    fonts = (first, *(_more_font(name, size) for name in _MORE_FONTS))
    return next((font for font in fonts if font is not None and _has(font, letter)), first)


def _has(font: Any, letter: str) -> bool:
    found, sign = font.getmask(letter), font.getmask(_NO_LETTER)
    return letter.isspace() or found.size != sign.size or bytes(found) != bytes(sign)


def _runs(text: str, size: int) -> Iterator[tuple[str, Any]]:
    """The text in parts, each with the font that has its letters."""
    for font, letters in groupby(text, lambda letter: _font_of(letter, size)):
        yield "".join(letters), font


def _latin(text: str) -> str:
    """What Pillow's own bitmap font knows."""
    return text.encode("latin-1", "replace").decode("latin-1")
