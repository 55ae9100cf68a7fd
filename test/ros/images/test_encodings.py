# SPDX-License-Identifier: Apache-2.0
"""Numbers that are no picture are refused, unless the parameter `encodings` says how to read them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from fixtures.pictures import RGB

from mobilevlm_ros.errors import ConfigurationError, ImageError
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.images.encodings import LAYOUTS, is_abstract, parse_encodings

GREY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
TYPES = [f"{depth}C{n}" for depth in ("8U", "8S", "16U", "16S", "32S", "32F", "64F") for n in (1, 2, 3, 4)]


def raw(samples: np.ndarray, encoding: str) -> SimpleNamespace:
    """sensor_msgs/Image of little-endian samples [H, W] or [H, W, C]."""
    height, width = samples.shape[:2]
    return SimpleNamespace(
        width=width,
        height=height,
        encoding=encoding,
        is_bigendian=0,
        step=samples[0].nbytes,
        data=samples.tobytes(),
    )


def packed(samples: np.ndarray, format_: str, kind: str = ".png") -> SimpleNamespace:
    """sensor_msgs/CompressedImage as image_transport makes it."""
    return SimpleNamespace(format=format_, data=cv2.imencode(kind, samples)[1].tobytes())


def mosaic(pattern: str) -> np.ndarray:
    """RGB as a sensor with this Bayer pattern sees it."""
    seen = np.empty(RGB.shape[:2], np.uint8)
    for place, color in enumerate(pattern):
        y, x = divmod(place, 2)
        seen[y::2, x::2] = RGB[y::2, x::2, "rgb".index(color)]
    return seen


def header_names() -> list[str]:
    """Every encoding of the installed sensor_msgs/image_encodings.hpp."""
    prefixes = [sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(":")]
    for prefix in prefixes:
        for header in Path(prefix, "include").glob("**/sensor_msgs/image_encodings.hpp"):
            return re.findall(r'const char \w+\[\] = "(\w+)"', header.read_text())
    return []


def test_every_encoding_of_the_installed_header_is_right_or_refused_by_name() -> None:
    names = header_names()
    if not names:
        pytest.skip("sensor_msgs/image_encodings.hpp is not installed")
    assert {"rgb8", "16UC1", "bayer_rggb8"} <= set(names)  # of every distribution
    for name in names:
        if is_abstract(name.lower()):
            with pytest.raises(ImageError, match=f"'{name}'.*numbers"):
                image_to_rgb(raw(np.zeros((8, 8, 4), np.float64), name))
        else:
            assert name in LAYOUTS, name  # test_image_conversion.py compares the pixels of each


@pytest.mark.parametrize("name", [*TYPES, "8uc1", "16uc1", "32FC", "8UC17"])
def test_numbers_are_no_picture(name: str) -> None:
    with pytest.raises(ImageError, match=r"numbers, not a picture.*encodings"):
        image_to_rgb(raw(np.zeros((4, 4), np.uint16), name))


@pytest.mark.parametrize("name", [name for name in TYPES if name not in ("8UC3", "8UC4")])
@pytest.mark.parametrize("rest", ["; png compressed ", "; jpeg compressed ", ""])
def test_numbers_compressed_are_none_either(name: str, rest: str) -> None:
    depth = np.full((40, 60), 1200, np.uint16)
    with pytest.raises(ImageError, match="numbers, not a picture"):
        compressed_to_rgb(packed(depth, name + rest))


@pytest.mark.parametrize(
    "format_", ["16UC1; compressedDepth png", "32FC1; compressedDepth", "mono16; compressedDepth rvl"]
)
def test_compressed_depth_is_refused(format_: str) -> None:
    with pytest.raises(ImageError, match="depth"):
        compressed_to_rgb(packed(np.full((40, 60), 1200, np.uint16), format_))


@pytest.mark.parametrize(
    "format_",
    [
        "jpeg",
        "png",
        "",
        "rgb8; jpeg compressed bgr8",
        "8UC3; jpeg compressed bgr8",
        "bayer_rggb8; jpeg compressed bgr8",
        "mono16; png compressed bgr8",
        "yuv422; jpeg compressed bgr8",
    ],
)
def test_what_a_colour_picture_was_before_means_nothing(format_: str) -> None:
    assert np.array_equal(compressed_to_rgb(packed(RGB[..., ::-1], format_)), RGB)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_compressed_mosaic_has_its_colours(pattern: str, bits: int) -> None:
    seen = mosaic(pattern) if bits == 8 else mosaic(pattern).astype(np.uint16) * 257
    name = f"bayer_{pattern}{bits}"
    rgb = compressed_to_rgb(packed(seen, f"{name}; png compressed "))
    assert np.array_equal(rgb, image_to_rgb(raw(seen, name)))
    assert np.abs(rgb.astype(int) - RGB).mean() < 6
    jpeg = packed(mosaic(pattern), f"{name}; jpeg compressed ", ".jpg")
    assert np.abs(compressed_to_rgb(jpeg).astype(int) - RGB).mean() < 16


def test_sixteen_grey_bits_keep_their_upper_half() -> None:
    for sent in (
        packed(GREY.astype(np.uint16) * 257, "mono16; png compressed "),
        packed(GREY, "mono8; png compressed "),
    ):
        assert np.array_equal(compressed_to_rgb(sent), np.dstack([GREY] * 3))


@pytest.mark.parametrize("bits", [10, 12])
def test_few_bits_in_sixteen_are_refused_as_nearly_black_or_stretched(bits: int) -> None:
    small = GREY.astype(np.uint16) << bits - 8
    for name, read in (("mono16", image_to_rgb), ("mono16; png compressed ", compressed_to_rgb)):
        sent = raw(small, name) if read is image_to_rgb else packed(small, name)
        with pytest.raises(ImageError, match=r"nearly black.*\['mono16=mono12'\]"):
            read(sent)
        rgb = read(sent, parse_encodings([f"mono16=mono{bits}"]))
        assert np.abs(rgb.astype(int) - GREY[..., None]).max() <= 1
        assert read(sent, {"mono16": "mono16"}).max() < 16  # it is that dark, says the user
    coloured = RGB.astype(np.uint16) << bits - 8
    assert np.abs(image_to_rgb(raw(coloured, "rgb16"), {"rgb16": f"rgb{bits}"}).astype(int) - RGB).max() <= 1
    seen = mosaic("rggb").astype(np.uint16) << bits - 8
    bayer = image_to_rgb(raw(seen, "bayer_rggb16"), {"bayer_rggb16": f"bayer_rggb{bits}"})
    assert np.abs(bayer.astype(int) - RGB).mean() < 6


def test_a_bright_spot_is_no_lack_of_bits() -> None:
    night = np.zeros((20, 20), np.uint16)
    night[3, 3] = 40_000
    assert image_to_rgb(raw(night, "mono16")).max() > 100


def test_the_parameter_says_how_numbers_are_read() -> None:
    said = parse_encodings(
        ["8UC3=bgr8", "16UC1 = mono16", "thermal: 16UC1=mono12", "", "a/b: 8UC1=bayer_rggb8"]
    )
    assert said == {"8uc3": "bgr8", "16uc1": "mono16"}
    assert parse_encodings(["16UC1=mono16", "thermal: 16UC1=mono12"], "thermal") == {"16uc1": "mono12"}
    assert parse_encodings(["a/b: 8UC1=bayer_rggb8"], "a/b") == {"8uc1": "bayer_rggb8"}
    assert np.array_equal(image_to_rgb(raw(RGB[..., ::-1], "8UC3"), said), RGB)
    assert np.array_equal(
        image_to_rgb(raw(GREY.astype(np.uint16) * 257, "16UC1"), said), np.dstack([GREY] * 3)
    )
    heat = packed(GREY.astype(np.uint16) * 257, "16UC1; png compressed ")
    assert np.array_equal(compressed_to_rgb(heat, said), np.dstack([GREY] * 3))
    assert np.array_equal(
        compressed_to_rgb(packed(mosaic("rggb"), "8UC1; png compressed "), {"8uc1": "bayer_rggb8"}),
        image_to_rgb(raw(mosaic("rggb"), "bayer_rggb8")),
    )


@pytest.mark.parametrize(
    "entry",
    ["16UC1", "16UC1=", "=mono16", "16UC1=depth", "16UC1=mono7", "a: b: 16UC1=mono8", "mono12=mono16=x"],
)
def test_an_entry_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"encodings holds .*(write|use one of)"):
        parse_encodings([entry])
