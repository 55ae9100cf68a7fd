# SPDX-License-Identifier: Apache-2.0
"""Pictures that take long, or cannot be decoded, as a camera's decoder tells of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mobilevlm_ros.errors import Busy, ImageError
from mobilevlm_ros.nodes.cameras import frame_decoder
from mobilevlm_ros.nodes.cameras.image_buffer import StampedImage
from mobilevlm_ros.ros.images.messages import image_message


@pytest.fixture
def decoder() -> Iterator[frame_decoder.FrameDecoder]:
    made = frame_decoder.FrameDecoder("front", {})
    yield made
    made.close()


def test_a_picture_that_takes_long_is_no_bad_one(
    decoder: frame_decoder.FrameDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine any picture may: whoever asks again gets it."""
    go_on = threading.Event()
    whole = frame_decoder.image_to_rgb

    def slow(message: Image, encodings: Any) -> Any:
        go_on.wait(60.0)
        return whole(message, encodings)

    monkeypatch.setattr(frame_decoder, "image_to_rgb", slow)
    monkeypatch.setattr(frame_decoder, "DECODE_LIMIT", 0.01)
    kept = StampedImage(image_message(np.full((4, 6, 3), 90, np.uint8), Header()), 1)
    with pytest.raises(Busy, match="ask again later"):
        decoder.frame(kept)
    go_on.set()
    monkeypatch.setattr(frame_decoder, "DECODE_LIMIT", 60.0)
    assert decoder.frame(kept).image.shape == (4, 6, 3)


def test_a_bad_picture_that_is_looked_at_for_ever_costs_no_more_each_time(
    decoder: frame_decoder.FrameDecoder,
) -> None:
    """Its error is remembered; raising it again must not make it longer."""
    kept = StampedImage(CompressedImage(data=b"\xff\xd8no"), 1)
    lengths = set()
    for _ in range(5):
        with pytest.raises(ImageError) as caught:
            decoder.frame(kept)
        lengths.add(len(caught.traceback))
    assert len(lengths) == 1
