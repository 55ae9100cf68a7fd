# SPDX-License-Identifier: Apache-2.0
"""The encodings of sensor_msgs/image_encodings: how each lies in memory and becomes RGB, which are no
pictures, and what the parameter `encodings` says about those that do not say it themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ConfigurationError, ImageError

U8 = NDArray[np.uint8]
Samples = NDArray[np.integer[Any]]  # u8 or u16

Encodings = Mapping[str, str]
"""From an encoding that a publisher names to the one it is read as, both in small letters."""

DARK = 1 << 12
"""A picture of 16 bits whose samples all lie below is nearly black: most likely 10 or 12 bits fill them."""


@dataclass(frozen=True)
class Layout:
    """How an encoding lies in memory, and how it becomes RGB.

    Attributes:
        channels: interleaved samples of one pixel.
        bytes: of one sample.
        convert: from [H * rows, W, channels] (or [H * rows, W] for one channel) to u8[H, W, 3].
        rows: rows of `step` bytes in the message for each row of the picture (planar YUV has more than one).
        even: sides that must be even: '', 'width' or 'both'.
        least: smallest side in pixels that can be converted.
        bits: of a sample that say something, from the lowest on.
    """

    channels: int
    bytes: int
    convert: Callable[[Samples], U8]
    rows: float = 1
    even: str = ""
    least: int = 1
    bits: int = 16

    def to_rgb(self, samples: Samples) -> U8:
        """u8[H, W, 3] of samples; fewer bits than fill them are stretched."""
        if self.bits < 16:
            filled = 8 if samples.dtype == np.uint8 else 16  # 16 bits that a JPEG made 8
            samples = np.minimum(samples, (1 << self.bits + filled - 16) - 1) << 16 - self.bits
        return np.ascontiguousarray(self.convert(samples))


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


LAYOUTS: dict[str, Layout] = {
    "rgb8": Layout(3, 1, _to_8_bits),
    "bgr8": Layout(3, 1, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba8": Layout(4, 1, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra8": Layout(4, 1, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono8": Layout(1, 1, _cvt(cv2.COLOR_GRAY2RGB)),
    "rgb16": Layout(3, 2, _to_8_bits),
    "bgr16": Layout(3, 2, _cvt(cv2.COLOR_BGR2RGB)),
    "rgba16": Layout(4, 2, _cvt(cv2.COLOR_RGBA2RGB)),
    "bgra16": Layout(4, 2, _cvt(cv2.COLOR_BGRA2RGB)),
    "mono16": Layout(1, 2, _cvt(cv2.COLOR_GRAY2RGB)),
    # sensor_msgs defines yuv422 as UYVY and yuv422_yuy2 as YUYV; the short names are the newer ones.
    "yuv422": Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_UYVY), even="width"),
    "uyvy": Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_UYVY), even="width"),
    "yuv422_yuy2": Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_YUY2), even="width"),
    "yuyv": Layout(2, 1, _cvt(cv2.COLOR_YUV2RGB_YUY2), even="width"),
    "nv12": Layout(1, 1, _cvt(cv2.COLOR_YUV2RGB_NV12), rows=1.5, even="both"),
    "nv21": Layout(1, 1, _cvt(cv2.COLOR_YUV2RGB_NV21), rows=1.5, even="both"),
    "nv24": Layout(1, 1, _nv24, rows=3),
}

# OpenCV names a Bayer pattern after its second row and second column, ROS after its first: RGGB is OpenCV's
# BG.
for _pattern, _code in (
    ("rggb", cv2.COLOR_BayerBG2RGB),
    ("bggr", cv2.COLOR_BayerRG2RGB),
    ("gbrg", cv2.COLOR_BayerGR2RGB),
    ("grbg", cv2.COLOR_BayerGB2RGB),
):
    LAYOUTS[f"bayer_{_pattern}8"] = Layout(1, 1, _cvt(_code), least=3)
    LAYOUTS[f"bayer_{_pattern}16"] = Layout(1, 2, _cvt(_code), least=3)

_ABSTRACT = re.compile(r"(8|16|32)[us]c\d*|(16|32|64)fc\d*")
_FEWER_BITS = re.compile(r"((?:rgba?|bgra?|mono|bayer_[rgb]{4}))(9|1[0-5])")
_ENTRY = re.compile(r"(?:(?P<camera>[^:=\s]*):\s*)?(?P<source>[^:=\s]+)\s*=\s*(?P<target>[^:=\s]+)")


def is_abstract(name: str) -> bool:
    """Whether an encoding names numbers only, as 16UC1 and 32FC1 do: depth, labels, heat or grey."""
    return _ABSTRACT.fullmatch(name) is not None


def layout_of(name: str) -> Layout | None:
    """How a picture's encoding (in small letters) is read; None for one that is not known."""
    return LAYOUTS.get(name)


def read_as(name: str, encodings: Encodings) -> Layout | None:
    """The same, as the parameter `encodings` says where it does; only it may name fewer than 16 bits, as in
    mono12. Raises ImageError for numbers of which nobody says what they are.
    """
    name = name.strip().lower()
    target = encodings.get(name)
    if target is not None:
        return _target(target)
    if is_abstract(name):
        raise ImageError(
            f"unknown image encoding {name.upper()!r}: it names numbers, not a picture (they may be depth, "
            "labels or grey): ask about the camera's colour image; or, if it is a picture, say how to read "
            f"it with the node's parameter encodings, as in ['{name.upper()}={_likely(name)}']"
        )
    return layout_of(name)


def parse_encodings(entries: Sequence[str], camera: str | None = None) -> dict[str, str]:
    """What the parameter `encodings` says about a camera (None: about pictures in requests).

    Args:
        entries: each 'SOURCE=TARGET' for all cameras, or 'camera: SOURCE=TARGET'; empty ones say nothing.

    Raises:
        ConfigurationError: an entry that says something else, or an encoding that is not known.
    """
    general, own = {}, {}
    for entry in filter(None, map(str.strip, entries)):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ConfigurationError(
                f"encodings holds {entry!r}: write '16UC1=mono16', or 'front: 16UC1=mono16' for one camera"
            )
        source, target = match["source"].lower(), match["target"].lower()
        if _target(target) is None:
            raise ConfigurationError(
                f"encodings holds {entry!r}, and {match['target']!r} is not known: use one of "
                f"{', '.join(sorted(LAYOUTS))}, or fewer bits as in mono12 and bayer_rggb10"
            )
        if match["camera"] is None:
            general[source] = target
        elif match["camera"] == camera:
            own[source] = target
    return {**general, **own}


def _target(name: str) -> Layout | None:
    known = LAYOUTS.get(name)
    fewer = _FEWER_BITS.fullmatch(name)
    if known is None and fewer is not None and f"{fewer[1]}16" in LAYOUTS:
        return replace(LAYOUTS[f"{fewer[1]}16"], bits=int(fewer[2]))
    return known


def _likely(name: str) -> str:
    return {"8uc1": "mono8", "8uc3": "bgr8", "8uc4": "bgra8", "16uc3": "bgr16"}.get(name, "mono16")
