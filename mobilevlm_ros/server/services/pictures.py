# SPDX-License-Identifier: Apache-2.0
"""Pictures that clients send, decoded once while they are asked about; frames as JPEG for people."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any

import cv2

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.processing.image_decoder import decode_image, identify
from mobilevlm_ros.server.services.service import Picture, Snapshot

JPEG_QUALITY = 80


class PictureDecoder:
    """Decodes pictures and keeps the latest: most are asked about several times. Thread-safe.

    Args:
        keep: bytes of decoded pictures that are kept.
    """

    def __init__(self, keep: int = 96 << 20) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Picture] = OrderedDict()

    def kept(self, data: bytes) -> Picture | None:
        """The picture of a file's bytes, where it is kept: that takes no time to speak of."""
        key = _key(data)
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
            return known

    def picture(self, data: bytes) -> Picture:
        """The picture of a file's bytes. Raises ImageError, see `decode_image`."""
        known = self.kept(data)
        if known is not None:
            return known
        made = Picture(Frame(decode_image(data)), data, identify(data[:32]).lower())
        with self._lock:
            self._kept[_key(data)] = made
            while self._kept and sum(p.frame.image.nbytes for p in self._kept.values()) > self._keep:
                self._kept.popitem(last=False)
        return made


def _key(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def snapshot(frame: Frame, width: int = 0, camera: str | None = None) -> Snapshot:
    """A frame as JPEG, at most `width` pixels wide (0: as it is); `camera` names it where the frame does
    not. Raises ImageError where it cannot be encoded.
    """
    image: Any = frame.image
    if 0 < width < image.shape[1]:
        size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ImageError("the frame cannot be encoded as JPEG")
    height, full = frame.image.shape[:2]
    name = frame.camera if camera is None else camera
    return Snapshot(name, jpeg.tobytes(), full, height, frame.stamp_ns, frame.frame_id)
