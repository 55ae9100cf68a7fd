# SPDX-License-Identifier: Apache-2.0
"""Makes frames of one camera's pictures, on a thread of its own."""

from __future__ import annotations

from collections.abc import Collection
from concurrent import futures
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from mobilevlm_ros.errors import Busy, MobileVLMError, without_frames
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.nodes.cameras.image_buffer import StampedImage
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.images.decode_pool import DecodePool
from mobilevlm_ros.ros.images.encodings import Encodings
from mobilevlm_ros.ros.stamps import to_nanoseconds

DECODE_LIMIT = 1.0
"""Seconds that the model waits for a camera's picture; one of 12 megapixels takes 0.1 to 0.3."""


class FrameDecoder:
    """One picture at a time: what takes too long holds up this camera only.

    Args:
        camera: its name, for the frames.
        encodings: how to read the encodings that name numbers only.
    """

    def __init__(self, camera: str, encodings: Encodings) -> None:
        self._camera = camera
        self._encodings = encodings
        self._pool = DecodePool(workers=1, capacity=1, name="decode-camera")
        self._decoding: tuple[StampedImage, futures.Future[NDArray[np.uint8]]] | None = None
        self._made: tuple[StampedImage, Frame] | None = None  # the last one

    def frame(self, kept: StampedImage) -> Frame:
        """A kept image as a frame; the same frame again for the same image, so that it is encoded once.

        Raises:
            ImageError: it cannot be decoded.
            Busy: it takes too long, on a busy machine maybe, or the picture before is still being decoded.
        """
        made = self._made
        if made is not None and made[0] is kept:
            return made[1]
        rgb, header = self._decode(kept), kept.message.header
        frame = Frame(rgb, to_nanoseconds(header.stamp), header.frame_id, self._camera, kept.run)
        self._made = (kept, frame)
        return frame

    def keep_only(self, images: Collection[StampedImage]) -> None:
        """Forget the frame of any other image."""
        if self._made is not None and self._made[0] not in images:
            self._made = None

    def _decode(self, kept: StampedImage) -> NDArray[np.uint8]:
        if self._decoding is None or self._decoding[0] is not kept:
            message = kept.message
            to_rgb = image_to_rgb if isinstance(message, Image) else compressed_to_rgb
            self._decoding = (kept, self._pool.submit(partial(to_rgb, message, self._encodings)))
        try:
            rgb = self._decoding[1].result(DECODE_LIMIT)
        except (TimeoutError, futures.TimeoutError, futures.CancelledError) as error:
            raise Busy(
                f"a picture takes more than {DECODE_LIMIT:.0f} s to decode: ask again later; "
                "where it stays so, publish smaller ones"
            ) from error
        except MobileVLMError as error:  # remembered, and raised at each look at this image
            raise without_frames(error)  # noqa: B904  else each raise would add its frames to it
        self._decoding = None  # what failed is remembered, so that it is not tried again
        return rgb

    @property
    def idle(self) -> bool:
        """Whether nothing is being decoded."""
        return self._pool.idle

    def close(self) -> None:
        """End the thread."""
        self._pool.close()
