# SPDX-License-Identifier: Apache-2.0
"""Which pictures a request shows the model, as the encoder takes them."""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import Aspect
from mobilevlm_ros.inference.types import Frame, Region
from mobilevlm_ros.inference.validate import MAX_FRAMES, check_region
from mobilevlm_ros.processing.image import prepare

KEPT_VIEWS = MAX_FRAMES
"""Prepared pictures kept, 340 kB each at 336 x 336 (and not the frames they were made of): the same frame is
asked about by several at once."""


@dataclass(frozen=True, eq=False)
class ImageInput:
    """One picture for the encoder.

    Attributes:
        pixels: u8[S, S, 3], RGB.
        digest: of the pixels. It is the picture's identity, never the stamp: a looping bag or a simulation
            that forgets its stamps must not get another picture's answer.
    """

    pixels: NDArray[np.uint8]
    digest: bytes


class ImagePreparer:
    """Cuts and resizes frames; remembers the latest few.

    Args:
        size: S, side of the encoder's images in pixels.
        aspect: 'pad' or 'crop', of the bundle.
        fast: OpenCV instead of PIL to resize (within the tolerance that `processing.image` states).
    """

    def __init__(self, size: int, aspect: Aspect, fast: bool) -> None:
        self.size = size
        self.aspect: Aspect = aspect
        self.fast = fast
        self._kept: OrderedDict[tuple[int, Region | None], tuple[weakref.ref[Frame], ImageInput]] = (
            OrderedDict()
        )

    def views(self, frame: Frame, region: Region | None = None, with_frame: bool = False) -> list[ImageInput]:
        """The frame, or the region of it, or first the frame and then the region.

        A region that covers the picture is the picture. OptionError if it leaves the picture.
        """
        region = None if region is None or covers(region, frame) else check_region(region, frame)
        shown = [None, region] if with_frame and region is not None else [region]
        return [self._view(frame, part) for part in shown]

    def clear(self) -> None:
        """Forget the pictures."""
        self._kept.clear()

    def _view(self, frame: Frame, region: Region | None) -> ImageInput:
        key = (id(frame), region)
        known = self._kept.pop(key, None)
        # A frame that is gone may have left its id to another.
        same = known is not None and known[0]() is frame
        view = known[1] if known is not None and same else self._prepare(frame.image, region)
        self._kept[key] = (weakref.ref(frame), view)
        if len(self._kept) > KEPT_VIEWS:
            self._kept.popitem(last=False)
        return view

    def _prepare(self, image: NDArray[np.uint8], region: Region | None) -> ImageInput:
        if region is not None:
            image = image[region.y : region.y + region.height, region.x : region.x + region.width]
        pixels = prepare(image, self.size, aspect=self.aspect, fast=self.fast)
        return ImageInput(pixels, hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())


def covers(region: Region, frame: Frame) -> bool:
    """Whether the region is the whole picture."""
    height, width = frame.image.shape[:2]
    return (region.x, region.y, region.width, region.height) == (0, 0, width, height)
