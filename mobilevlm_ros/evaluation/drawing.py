# SPDX-License-Identifier: Apache-2.0
"""What the plots share. Drawn with OpenCV, which serving needs anyway."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import OptionError

INK = (40, 40, 40)
"""BGR, of text and outlines."""


def write(image: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float) -> None:
    """Text on u8[H, W, 3], its left lower corner at the pixel (x, y)."""
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)


def save(image: NDArray[np.uint8], path: Path) -> None:
    """Writes u8[H, W, 3], BGR, to a picture file. Raises OptionError for a path that OpenCV cannot write."""
    try:
        written = cv2.imwrite(str(path), image)
    except cv2.error:
        written = False
    if not written:
        raise OptionError(
            f"cannot write the plot {path}; name a file that ends in .png, in a directory that exists"
        )
