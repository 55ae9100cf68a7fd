# SPDX-License-Identifier: Apache-2.0
"""From sensor_msgs images to RGB arrays, for every encoding that a colour or mono camera sends.

Needs no ROS: any object with the message's fields will do. Whatever is wrong with a message becomes an
ImageError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_decoder import MAX_PIXELS, decode_image
from mobilevlm_ros.ros.cv_bridge_fallback import bridged

U8 = NDArray[np.uint8]
Samples = NDArray[np.integer[Any]]  # u8 or u16


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


@dataclass(frozen=True)
class _Layout:
    """How an encoding lies in memory, and how it becomes RGB.

    Attributes:
        channels: interleaved samples of one pixel.
        bytes: of one sample.
        convert: from [H * rows, W, channels] (or [H * rows, W] for one channel) to u8[H, W, 3].
        rows: rows of `step` bytes in the message for each row of the picture (planar YUV has more than one).
        even: sides that must be even: '', 'width' or 'both'.
        least: smallest side in pixels that can be converted.
    """

    channels: int
    bytes: int
    convert: Callable[[Samples], U8]
    rows: float = 1
    even: str = ""
    least: int = 1


def image_to_rgb(message: ImageMessage) -> U8:
    """RGB u8[H, W, 3] of a sensor_msgs/Image, contiguous; 16-bit samples are scaled to 8 bits.

    Raises:
        ImageError: unknown encoding, impossible size or step, or too little or too much data; names all of
            them.
    """
    layout = _LAYOUTS.get(message.encoding.strip().lower())
    if layout is None:
        rgb = bridged(message)
        if rgb is not None:
            return rgb
        raise ImageError(
            f"unknown image encoding {message.encoding!r}: publish one of {', '.join(sorted(_LAYOUTS))}"
        )
    _check_size(message, layout)
    samples = _samples(message, layout)
    try:
        return np.ascontiguousarray(layout.convert(samples))
    except cv2.error as error:
        raise ImageError(f"{_describe(message)} cannot be converted to RGB: {error.err}") from error


def compressed_to_rgb(message: CompressedMessage) -> U8:
    """RGB u8[H, W, 3] of a sensor_msgs/CompressedImage (JPEG, PNG or WebP), turned upright as its EXIF says.

    Raises:
        ImageError: no data, not a picture, truncated, damaged, or too large.
    """
    size = len(message.data)
    what = f"the compressed image (format {message.format!r}, {size} bytes)"
    if size == 0:
        raise ImageError(f"{what} is empty: check the publisher")
    if "compresseddepth" in message.format.lower():
        raise ImageError(f"{what} is a depth image: give the colour image of the camera")
    return decode_image(message.data, what)


def _describe(message: ImageMessage) -> str:
    return (
        f"image of encoding {message.encoding!r}, {message.width}x{message.height}, step {message.step}, "
        f"{len(message.data)} bytes"
    )


def _check_size(message: ImageMessage, layout: _Layout) -> None:
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


def _samples(message: ImageMessage, layout: _Layout) -> Samples:
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


def _cvt(code: int) -> Callable[[Samples], U8]:
    def convert(samples: Samples) -> U8:
        converted: Samples = cv2.cvtColor(samples, code)  # type: ignore[assignment]  # keeps the depth
        return _to_8_bits(converted)

    return convert


def _to_8_bits(samples: Samples) -> U8:
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    return cv2.convertScaleAbs(samples, alpha=255.0 / 65535.0).astype(np.uint8, copy=False)


def _nv24(planes: Samples) -> U8:
    """Full-resolution chroma: the luma at twice the size makes it NV12, which OpenCV converts (BT.601)."""
    height, width = planes.shape[0] // 3, planes.shape[1]
    luma = planes[:height].repeat(2, axis=0).repeat(2, axis=1)
    chroma = planes[height:].reshape(height, width * 2)  # U V U V ...: one pair for each 2x2 block of `luma`
    doubled = cv2.cvtColor(np.concatenate((luma, chroma)), cv2.COLOR_YUV2RGB_NV12)
    return doubled[::2, ::2].astype(np.uint8, copy=False)


_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout(3, 1, _to_8_bits),
    "bgr8": _Layout(3, 1, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba8": _Layout(4, 1, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Layout(4, 1, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono8": _Layout(1, 1, _cvt(cv2.COLOR_GRAY2RGB)),
    "rgb16": _Layout(3, 2, _to_8_bits),
    "bgr16": _Layout(3, 2, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba16": _Layout(4, 2, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra16": _Layout(4, 2, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono16": _Layout(1, 2, _cvt(cv2.COLOR_GRAY2RGB)),
    # OpenCV's own names, which some drivers send for colour cameras; as cv_bridge, three channels are taken
    # as BGR.
    "8uc1": _Layout(1, 1, _cvt(cv2.COLOR_GRAY2RGB)),
    "8uc3": _Layout(3, 1, _cvt(cv2.COLOR_BGR2RGB)),
    "8uc4": _Layout(4, 1, _cvt(cv2.COLOR_BGRA2RGB)),
    "16uc1": _Layout(1, 2, _cvt(cv2.COLOR_GRAY2RGB)),
    # sensor_msgs defines yuv422 as UYVY and yuv422_yuy2 as YUYV; the short names are the newer ones.
    "yuv422": _Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_UYVY), even="width"),
    "uyvy": _Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_UYVY), even="width"),
    "yuv422_yuy2": _Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_YUY2), even="width"),
    "yuyv": _Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_YUY2), even="width"),
    "nv21": _Layout(1, 1, _cvt(cv2.COLOR_YUV2RGB_NV21), rows=1.5, even="both"),
    "nv24": _Layout(1, 1, _nv24, rows=3),
}

# OpenCV names a Bayer pattern after its second row and second column, ROS after its first: RGGB is OpenCV's
# BG.
for _pattern, _code in (
    ("rggb", cv2.COLOR_BayerBG2RGB),
    ("bggr", cv2.COLOR_BayerRG2RGB),
    ("gbrg", cv2.COLOR_BayerGR2RGB),
    ("grbg", cv2.COLOR_BayerGB2RGB),
):
    _LAYOUTS[f"bayer_{_pattern}8"] = _Layout(1, 1, _cvt(_code), least=3)
    _LAYOUTS[f"bayer_{_pattern}16"] = _Layout(1, 2, _cvt(_code), least=3)
