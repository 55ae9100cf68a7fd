# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.images.encodings import LAYOUTS

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
SMOOTH = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)


def message(rows: np.ndarray, encoding: str, width: int, height: int, padding: int = 0, big: bool = False):
    """sensor_msgs/Image of rows [R, ...], each padded with garbage."""
    flat = rows.reshape(rows.shape[0], -1)
    if flat.dtype == np.uint16:
        flat = flat.astype(">u2" if big else "<u2").view(np.uint8)
    padded = np.pad(flat, ((0, 0), (0, padding)), constant_values=171)
    return SimpleNamespace(
        width=width,
        height=height,
        encoding=encoding,
        is_bigendian=int(big),
        step=padded.shape[1],
        data=padded.tobytes(),
    )


def gray(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", np.dstack((RGB, RGB[..., 0]))),
        ("bgra8", np.dstack((RGB[..., ::-1], RGB[..., 0]))),
    ],
)
def test_colour_channels_end_up_as_rgb(encoding: str, pixels: np.ndarray, padding: int) -> None:
    assert np.array_equal(image_to_rgb(message(pixels, encoding, 8, 6, padding)), RGB)


def test_mono_becomes_three_equal_channels() -> None:
    rgb = image_to_rgb(message(gray(RGB), "mono8", 8, 6, 3))
    assert np.array_equal(rgb, np.dstack([gray(RGB)] * 3))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 7])
def test_sixteen_bits_keep_their_upper_half_in_either_byte_order(big: bool, padding: int) -> None:
    deep = RGB.astype(np.uint16) * 257
    assert np.array_equal(image_to_rgb(message(deep, "rgb16", 8, 6, padding, big)), RGB)
    assert np.array_equal(image_to_rgb(message(deep[..., ::-1], "bgr16", 8, 6, padding, big)), RGB)
    mono = image_to_rgb(message(deep[..., 0], "mono16", 8, 6, padding, big))
    assert np.array_equal(mono, np.dstack([RGB[..., 0]] * 3))


@pytest.mark.parametrize(
    ("pattern", "red", "blue"),
    [("rggb", (0, 0), (1, 1)), ("bggr", (1, 1), (0, 0)), ("gbrg", (1, 0), (0, 1)), ("grbg", (0, 1), (1, 0))],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns_are_named_after_their_first_pixels(pattern: str, red, blue, bits: int) -> None:
    flat = np.broadcast_to(np.array([200, 100, 50], np.uint8), (16, 16, 3))
    mosaic = flat[..., 1].copy()
    mosaic[red[0] :: 2, red[1] :: 2] = 200
    mosaic[blue[0] :: 2, blue[1] :: 2] = 50
    data = mosaic if bits == 8 else mosaic.astype(np.uint16) * 257
    rgb = image_to_rgb(message(data, f"bayer_{pattern}{bits}", 16, 16, 4))
    assert np.array_equal(rgb[2:-2, 2:-2], flat[2:-2, 2:-2])


def ycbcr(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """BT.601 limited range, as cameras send it: written down here independently of OpenCV."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    cb = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    cr = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    return tuple(np.clip(np.rint(c), 0, 255).astype(np.uint8) for c in (y, cb, cr))


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"])
def test_yuv_layouts(encoding: str) -> None:
    blocks = RGB.repeat(2, axis=0).repeat(2, axis=1)  # one colour per 2x2 block: subsampling loses nothing
    height, width = blocks.shape[:2]
    y, cb, cr = ycbcr(blocks)
    if encoding.startswith("nv"):
        if encoding == "nv21":
            chroma = np.dstack((cr[::2, ::2], cb[::2, ::2])).reshape(-1, width)
        elif encoding == "nv12":
            chroma = np.dstack((cb[::2, ::2], cr[::2, ::2])).reshape(-1, width)
        else:
            chroma = np.dstack((cb, cr)).reshape(-1, width)
        rows = np.concatenate((y, chroma))
    else:
        pairs = np.empty((height, width, 2), np.uint8)
        first = encoding in ("yuv422", "uyvy")
        pairs[..., 1 if first else 0] = y
        pairs[:, 0::2, 0 if first else 1] = cb[:, 0::2]
        pairs[:, 1::2, 0 if first else 1] = cr[:, 0::2]
        rows = pairs
    rgb = image_to_rgb(message(rows, encoding, width, height))
    assert np.abs(rgb.astype(int) - blocks).max() <= 4


def test_every_encoding_is_accepted_in_capitals_and_from_any_buffer() -> None:
    sent = message(RGB, "RGB8", 8, 6)
    for data in (sent.data, bytearray(sent.data), memoryview(sent.data), np.frombuffer(sent.data, np.uint8)):
        sent.data = data
        assert np.array_equal(image_to_rgb(sent), RGB)


def test_padding_of_the_last_row_may_be_missing() -> None:
    sent = message(RGB, "rgb8", 8, 6, 5)
    sent.data = sent.data[:-5]
    assert np.array_equal(image_to_rgb(sent), RGB)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"encoding": "rgb9"}, "unknown image encoding 'rgb9'"),
        ({"encoding": "32FC1"}, "unknown image encoding '32FC1'"),
        ({"encoding": ""}, "unknown image encoding ''"),
        ({"width": 0}, "is empty"),
        ({"height": 0}, "is empty"),
        ({"step": 0}, "wrong step"),
        ({"step": 23}, "wrong step: a row takes at least 24 bytes"),
        ({"step": 25}, "does not fit together"),
        ({"data": b""}, "0 bytes does not fit"),
        ({"data": b"x" * 143}, "143 bytes does not fit"),
        ({"data": b"x" * 145}, "145 bytes does not fit"),
        ({"width": 100_000, "height": 100_000}, "more than"),
        ({"encoding": "nv21", "width": 7}, "even"),
        ({"encoding": "bayer_rggb8", "width": 2, "height": 2, "step": 2, "data": b"xxxx"}, "too small"),
    ],
)
def test_a_malformed_message_is_refused_with_encoding_step_and_size(change: dict, what: str) -> None:
    sent = message(RGB, "rgb8", 8, 6)
    vars(sent).update(change)
    with pytest.raises(ImageError, match=what) as refusal:
        image_to_rgb(sent)
    assert repr(sent.encoding) in str(refusal.value)


def test_extreme_sizes_are_converted() -> None:
    assert image_to_rgb(message(np.zeros((1, 3), np.uint8), "rgb8", 1, 1)).shape == (1, 1, 3)
    large = SimpleNamespace(
        width=8000, height=6000, encoding="mono8", is_bigendian=0, step=8000, data=bytes(48_000_000)
    )
    assert image_to_rgb(large).shape == (6000, 8000, 3)


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from([*LAYOUTS, "rgb9", "", "\x00"]),
    width=st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)),
    height=st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)),
    step=st.one_of(st.integers(0, 80), st.integers(0, 2**32 - 1)),
    big=st.integers(0, 255),
    data=st.binary(max_size=600),
)
def test_any_fields_give_a_picture_or_an_image_error(encoding, width, height, step, big, data) -> None:
    sent = SimpleNamespace(
        encoding=encoding, width=width, height=height, step=step, is_bigendian=big, data=data
    )
    try:
        rgb = image_to_rgb(sent)
    except ImageError:
        return
    assert (rgb.shape, rgb.dtype) == ((height, width, 3), np.uint8)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(LAYOUTS)), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.data())
def test_consistent_fields_give_a_picture_of_that_size(encoding, width, height, padding, data) -> None:
    layout = LAYOUTS[encoding]
    width, height = max(width, layout.least), max(height, layout.least)
    width, height = (2 * width if layout.even else width), (2 * height if layout.even == "both" else height)
    step = width * layout.channels * layout.bytes + padding
    size = step * round(height * layout.rows)
    body = data.draw(st.binary(min_size=size, max_size=size))
    sent = SimpleNamespace(
        encoding=encoding, width=width, height=height, step=step, is_bigendian=1, data=body
    )
    own = {encoding: encoding}  # nearly black pictures too
    assert image_to_rgb(sent, own).shape == (height, width, 3)


def packed(rgb: np.ndarray, kind: str, format_: str = "") -> SimpleNamespace:
    _, data = cv2.imencode(kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return SimpleNamespace(format=format_ or f"rgb8; {kind[1:]} compressed bgr8", data=data.tobytes())


def test_png_is_exact_and_jpeg_is_close() -> None:
    assert np.array_equal(compressed_to_rgb(packed(SMOOTH, ".png")), SMOOTH)
    error = np.abs(compressed_to_rgb(packed(SMOOTH, ".jpg")).astype(int) - SMOOTH)
    assert error.mean() < 8


def test_sixteen_bit_and_mono_pngs_become_rgb() -> None:
    _, deep = cv2.imencode(".png", RGB.astype(np.uint16) * 257)
    _, mono = cv2.imencode(".png", gray(RGB))
    for data in (deep, mono):
        assert compressed_to_rgb(SimpleNamespace(format="png", data=data.tobytes())).shape == (6, 8, 3)


def test_a_huge_picture_is_refused_before_it_is_decoded() -> None:
    sent = packed(RGB, ".png")
    data = bytearray(sent.data)
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ImageError, match="60000x60000"):
        compressed_to_rgb(SimpleNamespace(format="png", data=bytes(data)))


@pytest.mark.parametrize(
    ("format_", "data", "what"),
    [
        ("jpeg", b"", "is empty"),
        ("jpeg", b"not a picture", "not a picture"),
        ("16UC1; compressedDepth png", b"\x00" * 20, "depth"),
        ("jpeg", packed(SMOOTH, ".jpg").data[:-200], "truncated"),
        ("png", packed(SMOOTH, ".png").data[:60], "its PNG is truncated"),
    ],
)
def test_a_malformed_compressed_message_is_refused(format_: str, data: bytes, what: str) -> None:
    with pytest.raises(ImageError, match=what):
        compressed_to_rgb(SimpleNamespace(format=format_, data=data))


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([packed(SMOOTH, ".jpg").data, packed(SMOOTH, ".png").data]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 4000),
    st.text(max_size=20),
)
def test_damaged_pictures_give_a_picture_or_an_image_error(body, damage, length, format_) -> None:
    data = bytearray(body[:length])
    for at, value in damage:
        if at < len(data):
            data[at] = value
    try:
        rgb = compressed_to_rgb(SimpleNamespace(format=format_, data=bytes(data)))
    except ImageError:
        return
    assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8
