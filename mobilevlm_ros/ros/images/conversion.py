# SPDX-License-Identifier: Apache-2.0
"""From sensor_msgs images to RGB arrays, for every encoding that a colour or mono camera sends.

Needs no ROS: any object with the message's fields will do. Whatever is wrong with a message becomes an
ImageError.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol

import cv2
import numpy as np

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_decoder import MAX_PIXELS, decode_grey, decode_image
from mobilevlm_ros.ros.images.cv_bridge_fallback import bridged
from mobilevlm_ros.ros.images.encodings import (
    DARK,
    LAYOUTS,
    U8,
    Encodings,
    Layout,
    Samples,
    is_abstract,
    read_as,
)

_AS_PUBLISHED: Encodings = MappingProxyType({})


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that matter here."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes


class CompressedMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that matter here."""

    format: str
    data: bytes


def image_to_rgb(message: ImageMessage, encodings: Encodings = _AS_PUBLISHED) -> U8:
    """RGB u8[H, W, 3] of a sensor_msgs/Image, contiguous; 16-bit samples are scaled to 8 bits.

    Args:
        encodings: how to read encodings that do not say it themselves (`parse_encodings`).

    Raises:
        ImageError: unknown encoding or one of numbers, impossible size or step, too little or too much data,
            nearly black because few of its bits are used.
    """
    layout = read_as(message.encoding, encodings)
    if layout is None:
        rgb = bridged(message)
        if rgb is not None:
            return rgb
        raise ImageError(
            f"unknown image encoding {message.encoding!r}: publish one of {', '.join(sorted(LAYOUTS))}"
        )
    _check_size(message, layout)
    samples = _samples(message, layout)
    _check_bits(samples, layout, message.encoding, encodings)
    try:
        return layout.to_rgb(samples)
    except cv2.error as error:
        raise ImageError(f"{_describe(message)} cannot be converted to RGB: {error.err}") from error


def compressed_to_rgb(message: CompressedMessage, encodings: Encodings = _AS_PUBLISHED) -> U8:
    """RGB u8[H, W, 3] of a sensor_msgs/CompressedImage (JPEG, PNG or WebP), turned upright as its EXIF says.

    image_transport writes the encoding that it compressed before the ';' of `format`. A grey picture of a
    Bayer pattern is a mosaic, one of 16UC1 is most likely depth. With colour pictures it means nothing: they
    say themselves which channel is red, and many drivers write any encoding there.

    Args:
        encodings: how to read encodings that do not say it themselves (`parse_encodings`).

    Raises:
        ImageError: no data, not a picture, truncated, damaged, too large, or numbers.
    """
    size = len(message.data)
    what = f"the compressed image (format {message.format!r}, {size} bytes)"
    if size == 0:
        raise ImageError(f"{what} is empty: check the publisher")
    if "compresseddepth" in message.format.lower():
        raise ImageError(f"{what} is a depth image: give the colour image of the camera")
    source = message.format.partition(";")[0].strip().lower()
    numbers = is_abstract(source) and source not in ("8uc3", "8uc4")
    if not (numbers or source.startswith(("bayer_", "mono16")) or source in encodings):
        return decode_image(message.data, what)
    layout = read_as(source, encodings)
    grey = decode_grey(message.data, what)
    if grey is None:
        return decode_image(message.data, what)
    if layout is None or layout.channels != 1 or layout.rows != 1:
        raise ImageError(f"{what} is grey, which {source!r} cannot be: check the publisher")
    _check_bits(grey, layout, source, encodings)
    try:
        return layout.to_rgb(grey)
    except cv2.error as error:
        raise ImageError(f"{what} cannot be converted to RGB: {error.err}") from error


def _describe(message: ImageMessage) -> str:
    return (
        f"image of encoding {message.encoding!r}, {message.width}x{message.height}, step {message.step}, "
        f"{len(message.data)} bytes"
    )


def _check_size(message: ImageMessage, layout: Layout) -> None:
    width, height = message.width, message.height
    what = _describe(message)
    if width < 1 or height < 1:
        raise ImageError(f"the {what} is empty: check the camera")
    if width * height > MAX_PIXELS:
        raise ImageError(f"the {what} has more than {MAX_PIXELS} pixels: publish a smaller one")
    if min(width, height) < layout.least:
        raise ImageError(
            f"the {what} is too small: its encoding needs at least {layout.least}x{layout.least} pixels"
        )
    if (layout.even and width % 2) or (layout.even == "both" and height % 2):
        sides = "width" if layout.even == "width" else "width and height"
        raise ImageError(f"the {what} cannot exist: its encoding needs an even {sides}")
    row = width * layout.channels * layout.bytes
    if message.step < row:
        raise ImageError(f"the {what} has a wrong step: a row takes at least {row} bytes")
    rows = round(height * layout.rows)
    # Some drivers leave out the padding of the last row.
    if len(message.data) not in (message.step * rows, message.step * (rows - 1) + row):
        raise ImageError(
            f"the {what} does not fit together: step times rows is {message.step * rows} bytes; "
            "check the driver, or that the message is complete"
        )


def _samples(message: ImageMessage, layout: Layout) -> Samples:
    """The samples as an array, padding cut off, in this machine's byte order."""
    rows = round(message.height * layout.rows)
    row = message.width * layout.channels * layout.bytes
    raw: U8 = np.ndarray((rows, row), np.uint8, buffer=message.data, strides=(message.step, 1))
    raw = np.ascontiguousarray(raw)
    samples: Samples = raw
    if layout.bytes == 2:
        samples = raw.view(">u2" if message.is_bigendian else "<u2").astype(np.uint16, copy=False)
    if layout.channels == 1:
        return samples
    return samples.reshape(rows, message.width, layout.channels)


def _check_bits(samples: Samples, layout: Layout, encoding: str, encodings: Encodings) -> None:
    """Raises ImageError where 10 or 12 bits seem to lie in 16: all that the model would see is black."""
    wide = layout.bytes == 2 and layout.bits == 16 and encoding.strip().lower() not in encodings
    if not wide or int(samples.max(initial=0)) >= (DARK if samples.dtype == np.uint16 else DARK >> 8):
        return
    stem = encoding.strip().removesuffix("16")
    raise ImageError(
        f"an image of encoding {encoding!r} is nearly black: its samples use less than 12 of 16 bits. If the "
        f"camera gives 12 bits, set the node's parameter encodings, as in ['{encoding}={stem}12']; if the "
        f"scene is that dark, ['{encoding}={encoding}']"
    )
