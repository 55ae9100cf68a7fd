# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures.pictures import DAMAGES, RGB, turned, whole
from PIL import Image

from mobilevlm_ros.errors import ImageError, MobileVLMError
from mobilevlm_ros.evaluation.calibration.labels import from_file
from mobilevlm_ros.export.quantization.calibration_set import CalibrationSet
from mobilevlm_ros.processing import image_file
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


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_phone_held_upright_gives_an_upright_picture(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(turned(kind, 6, RGB[:32, :48]))
    assert read_picture(tmp_path / "a.jpg").shape == (48, 32, 3)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png is not a picture"):
        read_picture(tmp_path / "a.png")


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.png", "nul\0.png", "/dev/zero", "/dev/null"):
        with pytest.raises(ImageError, match="cannot be read"):
            read_picture(path)


def by_labels(path: Path) -> object:
    table = path.with_name("labels.csv")
    table.write_text(f"image,question,choices,answer\n{path.name},Is it?,yes|no,yes\n")
    return list(from_file(table))


def by_calibration(path: Path) -> object:
    return list(CalibrationSet(path.parent).conversations())


@pytest.mark.parametrize("reader", [read_picture, by_labels, by_calibration])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("damage", ["cut in the middle", "tail lost, end kept", "a hole of zeros"])
def test_every_reader_of_files_refuses_damage_by_the_file_s_name(
    reader: object, kind: str, damage: str, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(whole(kind))
    assert reader(tmp_path / "photo.png") is not None
    (tmp_path / "photo.png").write_bytes(DAMAGES[damage](whole(kind)))
    with pytest.raises(MobileVLMError, match=r"photo\.png is not a picture that can be used"):
        reader(tmp_path / "photo.png")


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path / "pipe")], stdin=subprocess.PIPE
    ) as child:
        child.stdin.write(whole("png"))
        child.stdin.close()
        assert np.array_equal(read_picture(tmp_path / "pipe"), RGB)
    assert child.returncode == 0


WRITE = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"


def test_a_pipe_that_nobody_writes_into_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="nothing came through it"):
        read_picture(tmp_path / "pipe")


def test_standard_input(tmp_path: Path) -> None:
    script = "from mobilevlm_ros.processing.image_file import read_picture; print(read_picture('-').shape)"
    given = {"capture_output": True, "timeout": 60}
    piped = subprocess.run([sys.executable, "-c", script], input=whole("webp"), **given)
    assert piped.stdout == b"(136, 200, 3)\n", piped.stderr
    (tmp_path / "a.png").write_bytes(whole("png"))
    with (tmp_path / "a.png").open("rb") as file:
        assert subprocess.run([sys.executable, "-c", script], stdin=file, **given).stdout == piped.stdout
    nothing = subprocess.run([sys.executable, "-c", script], input=b"", **given)
    assert nothing.returncode and b"standard input cannot be read: nobody writes" in nothing.stderr
