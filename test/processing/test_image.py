# SPDX-License-Identifier: Apache-2.0
"""The exact path gives the reference's pixels; the fast one keeps the projector's output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD, PAD_COLOR, normalize, prepare

PARITY = Path(__file__).parents[1] / "data" / "parity"
SIZE = 336


def picture(name: str) -> np.ndarray:
    return np.array(Image.open(PARITY / "images" / f"{name}.png"))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 7919 + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "aspect", "key"),
    [
        ("landscape", "pad", "landscape/pixel_values"),
        ("portrait", "pad", "portrait/pixel_values"),
        ("landscape", "crop", "landscape/nopad_pixel_values"),
    ],
)
def test_exact_path_equals_the_reference(name, aspect, key):
    pixels = normalize(prepare(picture(name), SIZE, aspect=aspect))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, np.load(PARITY / "v1.npz")[key][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "shape", [(480, 640), (640, 480), (333, 500), (7, 3), (3, 700), (336, 336), (100, 100)]
)
@pytest.mark.parametrize("size", [336, 144])
def test_strips_give_the_pixels_of_a_whole_canvas(shape, size):
    image = noise(*shape)
    side = max(shape)
    canvas = Image.new("RGB", (side, side), PAD_COLOR)
    canvas.paste(Image.fromarray(image), ((side - shape[1]) // 2, (side - shape[0]) // 2))
    expected = np.array(canvas.resize((size, size), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(prepare(image, size), expected)


@pytest.fixture(scope="module")
def projectors():
    return [load(PARITY / "ckpt" / name) for name in ("tiny-ldpnet", "tiny-ldpnetv2")]


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field"])
@pytest.mark.parametrize("aspect", ["pad", "crop"])
def test_fast_path_keeps_the_projectors_output_on_photos(photo, aspect, projectors):
    rgb = np.ascontiguousarray(getattr(data, photo)()[..., :3])
    exact, fast = (prepare(rgb, SIZE, aspect=aspect, fast=fast) for fast in (False, True))
    assert np.abs(exact.astype(int) - fast).mean() < 1.0
    for model in projectors:
        with torch.inference_mode():
            a, b = (
                model.encode_images(torch.from_numpy(normalize(p)[None])).flatten() for p in (exact, fast)
            )
        assert torch.nn.functional.cosine_similarity(a, b, dim=0) >= 0.999


def test_fast_path_halves_a_large_frame_first_without_moving_it():
    frame = np.kron(picture("landscape"), np.ones((8, 8, 1), np.uint8))  # 4000 x 2664
    exact, fast = (prepare(frame, SIZE, fast=fast).astype(int) for fast in (False, True))
    assert np.abs(exact - fast).mean() < 1.5


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("aspect", ["pad", "crop"])
@pytest.mark.parametrize("shape", [(1, 1), (6000, 8000), (1, 20000), (20000, 1), (2, 3), (335, 337)])
def test_any_size_and_aspect_ratio_works(shape, aspect, fast):
    result = prepare(np.full((*shape, 3), 200, np.uint8), SIZE, aspect=aspect, fast=fast)
    assert result.shape == (SIZE, SIZE, 3)
    assert result.dtype == np.uint8
    if aspect == "crop" or shape[0] == shape[1]:
        assert (result == 200).all()
    else:
        assert tuple(result[0, 0]) == PAD_COLOR or shape[0] >= shape[1] - 2


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.sampled_from([14, 48, 144]),
    aspect=st.sampled_from(["pad", "crop"]),
    fast=st.booleans(),
)
def test_small_pictures_of_every_shape(height, width, size, aspect, fast):
    result = prepare(noise(height, width), size, aspect=aspect, fast=fast)
    assert result.shape == (size, size, 3)
    assert result.flags.c_contiguous


def test_views_and_reversed_channels_are_read_right():
    image = picture("portrait")
    result = prepare(image[:, :, ::-1], SIZE, aspect="crop")
    np.testing.assert_array_equal(result, prepare(image, SIZE, aspect="crop")[:, :, ::-1])


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "4 x 0"),
        (np.zeros((4, 0, 3), np.uint8), "0 x 4"),
        (np.zeros((1, 70000, 3), np.uint8), "65535"),
        ([[1, 2, 3]], "list"),
        (None, "NoneType"),
    ],
)
@pytest.mark.parametrize("fast", [False, True])
def test_what_is_no_picture_is_refused(image, complaint, fast):
    with pytest.raises(ImageError, match=complaint):
        prepare(image, SIZE, fast=fast)


def test_unknown_aspect_is_a_programming_error():
    with pytest.raises(ValueError, match="stretch"):
        prepare(noise(4, 4), SIZE, aspect="stretch")


def test_normalize_scales_shifts_and_moves_channels_first():
    pixels = np.zeros((2, 3, 4, 3), np.uint8)
    pixels[..., 0] = 255
    result = normalize(pixels)
    assert result.shape == (2, 3, 3, 4)
    np.testing.assert_allclose(result[:, 0], (1 - IMAGE_MEAN[0]) / IMAGE_STD[0], rtol=1e-6)
    np.testing.assert_allclose(result[:, 2], -IMAGE_MEAN[2] / IMAGE_STD[2], rtol=1e-6)


def test_pad_colour_is_the_truncated_mean():
    assert tuple(int(255 * mean) for mean in IMAGE_MEAN) == PAD_COLOR
