# SPDX-License-Identifier: Apache-2.0
"""Files that somebody names: regular, small, opened once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.files.small_file import expanded, is_within, read_small_file


def test_a_regular_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_bytes(b"12345")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_small_file(tmp_path / "a.yaml", 5, "file") == b"12345"
    assert read_small_file("~/a.yaml", 5, "file") == b"12345"
    assert expanded("~/a") == str(tmp_path / "a") and expanded("") == ""


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "missing", "large", "nul"])
def test_anything_else_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(bytes(11))
    paths = {
        "pipe": pipe,
        "device": "/dev/zero",
        "directory": tmp_path,
        "missing": tmp_path / "no",
        "large": large,
        "nul": "a\0b",
    }
    with pytest.raises(ConfigurationError) as error:
        read_small_file(paths[kind], 10, "presets file")
    assert str(error.value).startswith("presets file ")


def test_links_are_followed_before_a_path_counts_as_inside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside / "secret")
    assert is_within(str(inside / "a" / "b"), [inside]) and is_within(str(inside), [inside])
    for path in (inside / "link", inside / ".." / "out" / "secret", tmp_path / "inside-not"):
        assert not is_within(str(path), [inside])
    assert not is_within(str(inside), [])
