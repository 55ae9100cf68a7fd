# SPDX-License-Identifier: Apache-2.0
"""From a camera's RGB array to the pixels the vision tower expects, as CLIPImageProcessor prepares them.

Two halves: `prepare` does the geometry and keeps uint8; `normalize` makes the floats. Engines fold the second
half into their graph, so that only uint8 travels.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError

Pixels = NDArray[np.uint8]

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Per channel, red first, of pixel values scaled to 0..1. From openai/clip-vit-large-patch14-336."""
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
PAD_COLOR = (122, 116, 104)
"""The mean colour, truncated to uint8: MobileVLM fills the margins of a squared image with it."""

MAX_SIDE = 65535
"""Pixels; the longest side a JPEG can have. Longer ones are refused: they are no camera's."""

_STRIP_PIXELS = 1 << 22
_MAX_CROP_ASPECT = 64


def prepare(
    rgb: NDArray[Any], size: int, *, aspect: Literal["pad", "crop"] = "pad", fast: bool = False
) -> Pixels:
    """Squares and resizes an image: u8[H,W,3] -> u8[size,size,3].

    aspect: `pad` centres the image on a square of PAD_COLOR, as the released models expect; `crop` resizes
        the short side and keeps the centre.
    fast: OpenCV instead of the reference's antialiased bicubic filter (Pillow). The pixels of photos then
        differ by about 0.5 of 255 on average; the projector's output keeps a cosine of at least 0.999.
    Raises ImageError when `rgb` is not a non-empty uint8 RGB array.
    """
    image = _checked(rgb)
    if aspect == "pad":
        return _pad_fast(image, size) if fast else _pad_exact(image, size)
    if aspect == "crop":
        return _crop(image, size, fast)
    raise ValueError(f"unknown aspect {aspect!r}; known: pad, crop")


def normalize(pixels: Pixels) -> NDArray[np.float32]:
    """Scales to 0..1, subtracts IMAGE_MEAN, divides by IMAGE_STD: u8[...,S,S,3] -> f32[...,3,S,S]."""
    return np.ascontiguousarray(np.moveaxis(_NORMALIZED[pixels, np.arange(3)], -1, -3))


_NORMALIZED = ((np.arange(256)[:, None] / 255.0 - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD)).astype(
    np.float32
)  # [value, channel]


def _checked(rgb: NDArray[Any]) -> Pixels:
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8:
        kind = getattr(rgb, "dtype", type(rgb).__name__)
        raise ImageError(f"the image is {kind}; give a uint8 RGB array of shape (height, width, 3)")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ImageError(f"the image has shape {rgb.shape}; give RGB of shape (height, width, 3)")
    height, width = rgb.shape[:2]
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ImageError(f"the image is {width} x {height} pixels; each side must be 1 to {MAX_SIDE}")
    return np.ascontiguousarray(rgb, np.uint8)


def _pad_exact(image: Pixels, size: int) -> Pixels:
    """Pillow's bicubic filter runs along rows, rounds to uint8, then along columns. Done apart, the passes
    give the same pixels without ever holding the whole square canvas, which a panorama would make huge."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    narrow = np.full((side, size, 3), PAD_COLOR, np.uint8)
    rows = max(1, _STRIP_PIXELS // side)
    for start in range(0, height, rows):
        part = image[start : start + rows]
        part = _border(part, left=left, right=side - width - left)
        narrow[top + start : top + start + len(part)] = _bicubic(part, size, len(part))
    return _bicubic(narrow, size, size)


def _bicubic(image: Pixels, width: int, height: int) -> Pixels:
    from PIL import Image  # serving with the fast path needs no Pillow

    return np.asarray(Image.fromarray(image).resize((width, height), Image.BICUBIC))  # type: ignore[attr-defined]


def _pad_fast(image: Pixels, size: int) -> Pixels:
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    # Averaging 2 x 2 pixels is the cheapest way down from a large frame, as long as nothing moves by half a
    # pixel and enough pixels stay to place the image's edge.
    while side > 8 * size and not (height % 2 or width % 2 or top % 2 or left % 2):
        height, width, side, top, left = height // 2, width // 2, side // 2, top // 2, left // 2
        image = _resize(image, width, height, cv2.INTER_AREA)
    # The long side first and the margins second: they cost little then, and keep their exact place on the
    # canvas, which the small image's pixels would round.
    if width >= height:
        image = _border(_stretch(image, 2 * size, height), top=top, bottom=side - height - top)
    else:
        image = _border(_stretch(image, width, 2 * size), left=left, right=side - width - left)
    return _halve(_stretch(image, 2 * size, 2 * size))


def _crop(image: Pixels, size: int, fast: bool) -> Pixels:
    height, width = image.shape[:2]
    # Only the middle survives, so what lies far outside of it need not be resized at all.
    limit = _MAX_CROP_ASPECT * min(height, width)
    if max(height, width) > limit:
        y, x = max(0, (height - limit) // 2), max(0, (width - limit) // 2)
        image = np.ascontiguousarray(image[y : y + limit, x : x + limit])
        height, width = image.shape[:2]
    short = min(height, width)
    new_height, new_width = (size if side == short else int(size * side / short) for side in (height, width))
    resized = (_resize_fast if fast else _bicubic)(image, new_width, new_height)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return np.ascontiguousarray(resized[top : top + size, left : left + size])


def _resize_fast(image: Pixels, width: int, height: int) -> Pixels:
    return _halve(_stretch(_stretch(image, 2 * width, image.shape[0]), 2 * width, 2 * height))


def _stretch(image: Pixels, width: int, height: int) -> Pixels:
    """OpenCV's bicubic filter looks at four pixels only: where more than two fall on one, average areas."""
    shrink = max(image.shape[1] / width, image.shape[0] / height)
    return _resize(image, width, height, cv2.INTER_AREA if shrink > 2 else cv2.INTER_CUBIC)


def _halve(image: Pixels) -> Pixels:
    """Half the size through the reference's own filter, whose 8 taps are then the same for each pixel."""
    smooth = cv2.sepFilter2D(image, -1, _HALVING, _HALVING, anchor=(3, 3), borderType=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(smooth[::2, ::2], np.uint8)


def _resize(image: Pixels, width: int, height: int, method: int) -> Pixels:
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _border(image: Pixels, *, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> Pixels:
    if not (top or bottom or left or right):
        return image
    wide = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=PAD_COLOR)
    return np.asarray(wide, np.uint8)


# Keys' cubic with a = -0.5, as in Pillow, at distances 0.25, 0.75, 1.25, 1.75 either side of an output pixel.
_HALVING = np.array([-3, -9, 29, 111, 111, 29, -9, -3], np.float32) / 256
