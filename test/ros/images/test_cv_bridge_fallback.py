# SPDX-License-Identifier: Apache-2.0
"""cv_bridge is asked about encodings that our converter does not know, and about nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.ros.images import cv_bridge_fallback as bridge
from mobilevlm_ros.ros.images.conversion import image_to_rgb

PICTURE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


def message(encoding: str) -> Any:
    return SimpleNamespace(
        height=2, width=3, encoding=encoding, is_bigendian=0, step=9, data=PICTURE.tobytes()
    )


class Installed:
    """Stands in for cv_bridge.CvBridge, which no package registry has."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.asked: list[str] = []

    def imgmsg_to_cv2(self, image: Any, wanted: str) -> Any:
        self.asked.append(image.encoding)
        assert wanted == "rgb8"
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_an_encoding_of_tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Installed(PICTURE)
    monkeypatch.setattr(bridge, "installed_bridge", lambda: installed)
    assert np.array_equal(image_to_rgb(message("rgb8")), PICTURE)
    assert installed.asked == []  # ours knows that
    assert np.array_equal(image_to_rgb(message("tomorrow8")), PICTURE)
    assert installed.asked == ["tomorrow8"]


def test_what_it_refuses_too_is_an_unknown_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "installed_bridge", lambda: Installed(TypeError("not a colour format")))
    with pytest.raises(ImageError, match="unknown image encoding '32FC1'"):
        image_to_rgb(message("32FC1"))


def test_what_it_returns_must_be_a_colour_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "installed_bridge", lambda: Installed(PICTURE[..., 0]))
    with pytest.raises(ImageError, match="no colour picture of encoding 'depth'"):
        image_to_rgb(message("depth"))


def test_without_it_nothing_changes() -> None:
    bridge.installed_bridge.cache_clear()
    with pytest.raises(ImageError, match="unknown image encoding 'tomorrow8'"):
        image_to_rgb(message("tomorrow8"))
