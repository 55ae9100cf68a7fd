# SPDX-License-Identifier: Apache-2.0
"""Tells whether a picture shows something that the last one did not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 16
"""Patches per side. A person 10 m away, in a view 70 degrees wide, covers about one."""


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Mean colour of each patch, i16[GRID, GRID, 3], of RGB u8[H, W, 3]; the mean swallows sensor noise."""
    return cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.int16)


def difference(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    """How much the patch that changed most changed, in its strongest colour: 0 (nothing) to 1.

    The most and not the mean: what enters a scene is small at first.
    """
    return float(np.abs(one - other).max()) / 255.0


class NoveltyGate:
    """Compares with the last picture that was let through, so slow changes add up until they count."""

    def __init__(self) -> None:
        self._last: NDArray[np.int16] | None = None

    def opens(self, image: NDArray[np.uint8], threshold: float) -> bool:
        """Whether RGB u8[H, W, 3] differs by at least `threshold` (0 to 1; 0: always). Remembers nothing."""
        if threshold <= 0 or self._last is None:
            return True
        return difference(thumbnail(image), self._last) >= threshold

    def remember(self, image: NDArray[np.uint8]) -> None:
        """RGB u8[H, W, 3] is what the next ones are compared with."""
        self._last = thumbnail(image)

    def forget(self) -> None:
        """Let the next picture through."""
        self._last = None
