# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_file import read_picture


def test_colours_are_red_first(tmp_path: Path) -> None:
    path = tmp_path / "bild \u00e9.png"
    Image.new("RGB", (5, 3), (200, 100, 50)).save(path)
    picture = read_picture(path)
    assert picture.shape == (3, 5, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_every_kind_of_picture_becomes_rgb(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").shape == (4, 4, 3)


def test_a_phone_held_upright_gives_an_upright_picture(tmp_path: Path) -> None:
    photo = Image.new("RGB", (6, 4))
    exif = photo.getexif()
    exif[0x0112] = 6  # orientation: turn it clockwise
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (6, 4, 3)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png is not a picture"):
        read_picture(tmp_path / "a.png")


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.png", "nul\0.png"):
        with pytest.raises(ImageError):
            read_picture(path)
