# SPDX-License-Identifier: Apache-2.0
"""Pictures that clients send: checked before they are decoded, decoded once while they are asked about."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.server.service import Picture

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded (150 MB decoded); the model sees at most 336 x 336."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What both Pillow (which reads the header) and OpenCV (which decodes) read. GIF: its first picture."""


class PictureDecoder:
    """Decodes pictures and keeps the latest: most are asked about several times. Thread-safe.

    Args:
        keep: bytes of decoded pictures that are kept.
        max_pixels: larger pictures are refused.
    """

    def __init__(self, keep: int = 96 << 20, max_pixels: int = MAX_PIXELS) -> None:
        self._keep = keep
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Picture] = OrderedDict()

    def picture(self, data: bytes) -> Picture:
        """The picture of a file's bytes. Raises ImageError: no picture, a damaged one, or too large."""
        key = hashlib.blake2b(data, digest_size=16).digest()
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                return known
        made = self._decode(data)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > 1 and sum(p.frame.image.nbytes for p in self._kept.values()) > self._keep:
                self._kept.popitem(last=False)
        return made

    def _decode(self, data: bytes) -> Picture:
        media = self._checked(data)
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is None:
            raise ImageError(f"the {media} picture is damaged or cut off: send the whole file")
        return Picture(Frame(np.ascontiguousarray(image[..., ::-1], np.uint8)), data, media.lower())

    def _checked(self, data: bytes) -> str:
        """What the file is, once its header says that it is of a size that may be decoded."""
        if not data:
            raise ImageError("the picture is empty: send the bytes of a JPEG or PNG file")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as header:
                width, height = header.size
                media = str(header.format)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise ImageError(
                f"the picture ({len(data)} bytes) is no {', '.join(FORMATS)} file: send JPEG or PNG"
            ) from None
        if width * height > self._max_pixels:
            raise ImageError(
                f"the picture is {width}x{height}: send one of at most {self._max_pixels // 1_000_000} "
                "megapixels"
            )
        return media
