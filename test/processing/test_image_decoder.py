# SPDX-License-Identifier: Apache-2.0
"""Whatever a decoder would only warn about is refused, cheaply; a whole picture is what Pillow says it is."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from fixtures.pictures import DAMAGES, ENCODINGS, HOSTILE, RGB, encoded, png, turned, whole, with_metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_decoder import MAX_BYTES, decode_image


def by_pillow(data: bytes) -> np.ndarray:
    """An independent reader, turned upright."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_whole_picture_is_the_one_that_pillow_reads(kind: str) -> None:
    rgb = decode_image(whole(kind))
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert np.array_equal(rgb, by_pillow(whole(kind)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "webp-lossless"])
def test_every_format_is_turned_upright(kind: str, orientation: int) -> None:
    data = turned(kind, orientation)
    assert np.array_equal(decode_image(data), by_pillow(data))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_damaged_picture_is_refused(kind: str, damage: str) -> None:
    with pytest.raises(ImageError, match=r"^photo is (not a picture|no|a)"):
        decode_image(DAMAGES[damage](whole(kind)), "photo")


@pytest.mark.parametrize("kind", ENCODINGS)
def test_one_wrong_bit_gives_the_whole_picture_or_an_error(kind: str) -> None:
    """PNG has checksums; JPEG and WebP have none, but keep the size and the type."""
    data, rng = whole(kind), np.random.default_rng(0)
    for at in rng.integers(0, len(data), 40):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        try:
            rgb = decode_image(bytes(changed))
        except ImageError:
            continue
        assert rgb.dtype == np.uint8 and rgb.ndim == 3
        if kind == "png":
            assert np.array_equal(rgb, RGB)


@pytest.mark.parametrize(
    "padding",
    [b"\0", b"\0" * 5000, b"\xff" * 7, b"\r\n", b"trailer"],
    ids=lambda padding: f"{len(padding)} of {padding[:1].hex()}",
)
@pytest.mark.parametrize("kind", ENCODINGS)
def test_padding_behind_a_whole_picture_is_no_damage(kind: str, padding: bytes) -> None:
    assert np.array_equal(decode_image(whole(kind) + padding), decode_image(whole(kind)))


@pytest.mark.parametrize(
    "padding",
    [b"\0", b"\0" * 20, b"\xff", b"\xff" * 9],
    ids=lambda padding: f"{len(padding)} of {padding[:1].hex()}",
)
def test_padding_before_the_end_marker_is_no_damage(padding: bytes) -> None:
    """As some webcams send it."""
    data = whole("jpeg")
    assert np.array_equal(decode_image(data[:-2] + padding + data[-2:]), decode_image(data))


@pytest.mark.parametrize("spare", [b"\x5a", b"\x5a\xa5"], ids=len)
def test_a_byte_or_two_that_a_webcam_leaves_over_is_no_damage(spare: bytes) -> None:
    data = whole("jpeg")
    assert np.array_equal(decode_image(data[:-2] + spare + data[-2:]), decode_image(data))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-444", "jpeg-restarts"])
def test_packets_lost_and_holes_of_zeros_anywhere_are_noticed(kind: str) -> None:
    noisy = np.clip(RGB + np.random.default_rng(0).normal(0, 15, RGB.shape), 0, 255).astype(np.uint8)
    for rgb in (RGB, noisy):
        data = encoded(kind, rgb)
        start = data.index(b"\xff\xda") + 14
        for at in np.linspace(start, len(data) - 300, 12).astype(int):
            for damaged in (
                data[:at] + data[at + 256 :],
                data[:at] + bytes(100) + data[at + 100 :],
                data[:at] + bytes(len(data) - at - 2) + data[-2:],
            ):
                with pytest.raises(ImageError, match="its JPEG is damaged"):
                    decode_image(damaged)


def test_zeros_that_an_encoder_wrote_are_no_damage() -> None:
    """With Huffman tables of its own, a flat part may be all zeros."""
    flat = np.full((512, 768, 3), 90, np.uint8)
    flat[:64] = RGB[:64, :96].repeat(8, axis=1)
    for options in ({"optimize": True}, {"progressive": True}, {}):
        data = encoded("jpeg", flat, quality=80, **options)
        assert np.array_equal(decode_image(data), by_pillow(data))
    assert bytes(16) in encoded("jpeg", flat, quality=80, optimize=True)


@pytest.mark.parametrize("count", [70_000, 300_000])
def test_much_metadata_is_no_damage(count: int) -> None:
    assert np.array_equal(decode_image(with_metadata(whole("jpeg"), count)), decode_image(whole("jpeg")))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "I;16"])
def test_every_kind_of_png_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(RGB).convert("L")
    picture = (
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(RGB).convert(mode)
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    expected = np.dstack([np.asarray(grey)] * 3) if mode == "I;16" else np.asarray(picture.convert("RGB"))
    assert np.array_equal(decode_image(buffer.getvalue()), expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 3), (9, 7), (33, 18)])
def test_interlaced_pngs_are_counted_right(depth: int, size: tuple[int, int]) -> None:
    width, height = size
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = 0
    for left, top, across, down in passes:
        columns = len(range(left, width, across))
        rows += len(range(top, height, down)) * (1 + (columns * depth + 7) // 8) if columns else 0
    assert decode_image(png(width, height, bytes(rows), depth, 0, 1)).shape == (height, width, 3)
    with pytest.raises(ImageError, match=rf"{rows - 1} of {rows} bytes"):
        decode_image(png(width, height, bytes(rows - 1), depth, 0, 1))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_print_jpegs_become_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(buffer, "JPEG", quality=95)
    difference = decode_image(buffer.getvalue()).astype(int) - by_pillow(buffer.getvalue())
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "it is empty"),
        (b"hello", "it is no JPEG, PNG or WebP"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (HOSTILE["TIFF"], "is a TIFF, which is not read: convert it"),
        (HOSTILE["AVIF"], "is an AVIF"),
        (HOSTILE["JPEG 2000"], "is a JPEG 2000"),
    ],
    ids=["empty", "text", "lfs", "tiff", "avif", "jp2"],
)
def test_other_formats_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=re.escape(name)):
        decode_image(data)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_what_pillow_writes_in_other_formats_is_refused_by_name(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    with pytest.raises(ImageError, match=r"is an? [\w ]+, which is not read: convert it"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animated"):
        decode_image(buffer.getvalue())


LIMITED = """
import resource, sys, time
import numpy, cv2, simplejpeg
from fixtures.pictures import HOSTILE
from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_decoder import decode_image
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20), used + (150 << 20)))
for name, data in HOSTILE.items():
    start = time.process_time()
    try:
        decode_image(data)
    except ImageError as error:
        assert "needs more memory" not in str(error), (name, error)
        assert len(str(error)) < 400, error
        assert time.process_time() - start < 10, (name, time.process_time() - start)
    else:
        raise SystemExit(f"{name} was decoded")
print(len(HOSTILE))
"""


def test_hostile_files_are_refused_in_little_memory_and_time() -> None:
    """With 150 MB of address space left, which a 50-megapixel buffer does not fit."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(HOSTILE))


def test_too_many_bytes_are_refused_unread() -> None:
    start = time.process_time()
    with pytest.raises(ImageError, match=f"more than {MAX_BYTES}"):
        decode_image(memoryview(bytearray(MAX_BYTES + 1)))
    assert time.process_time() - start < 10


WHOLE = {kind: encoded(kind, cv2.resize(RGB, (64, 48))) for kind in ENCODINGS}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=6),
    st.one_of(st.just(1 << 20), st.integers(0, 6000)),
    st.binary(max_size=30),
)
def test_any_change_gives_a_picture_or_an_image_error(kind, changes, length, tail) -> None:
    data = bytearray(WHOLE[kind][:length] + tail)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    try:
        rgb = decode_image(bytes(data))
    except ImageError:
        return
    assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP"]),
    st.binary(max_size=200),
)
def test_any_bytes_give_a_picture_or_an_image_error(start: bytes, rest: bytes) -> None:
    try:
        decode_image(start + rest)
    except ImageError:
        return


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_few_bits_in_sixteen_are_not_answered_as_black(bits: int, channels: int) -> None:
    shape = (32, 32) if channels == 1 else (32, 32, channels)
    samples = np.random.default_rng(0).integers(0, 1 << bits, shape).astype(np.uint16)
    data = cv2.imencode(".png", samples)[1].tobytes()
    if bits <= 12:
        with pytest.raises(ImageError, match=r"photo\.png is nearly black: .* less than 12 of 16 bits"):
            decode_image(data, "photo.png")
    else:
        assert decode_image(data).max() == (1 << bits - 8) - 1
