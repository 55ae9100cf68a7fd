# SPDX-License-Identifier: Apache-2.0
"""A reliability diagram: accuracy over confidence, before and after."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.calibration.temperature import BINS, Bin, ScoredAnswer, bins, quality
from mobilevlm_ros.evaluation.drawing import INK, write

_SIDE, _MARGIN = 360, 56  # pixels
_BAR, _IDEAL, _GRID = (176, 114, 76), (82, 78, 196), (225, 225, 225)  # BGR
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(panels: Sequence[tuple[str, Sequence[ScoredAnswer]]]) -> NDArray[np.uint8]:
    """One diagram for each (title, answers), side by side: u8 [H, W, 3], BGR."""
    return np.concatenate([_panel(title, marked) for title, marked in panels], axis=1)


def _panel(title: str, marked: Sequence[ScoredAnswer]) -> NDArray[np.uint8]:
    image = np.full((_SIDE + 2 * _MARGIN, _SIDE + 2 * _MARGIN, 3), 255, np.uint8)
    for tick in range(6):
        _tick(image, tick / 5)
    for number, found in enumerate(bins(marked)):
        _bar(image, number, found)
    cv2.rectangle(image, _at(0, 1), _at(1, 0), INK)
    cv2.line(image, _at(0, 0), _at(1, 1), _IDEAL, 1, cv2.LINE_AA)
    measured = quality(marked)
    write(image, f"{title}: ECE {measured.ece:.3f}, NLL {measured.nll:.3f}", (_MARGIN + 16, 34), 0.5)
    write(image, "accuracy", (_MARGIN - 46, _MARGIN - 8), 0.4)
    write(image, "confidence; above the axis: answers in each bin", (_MARGIN, _SIDE + 96), 0.4)
    return image


def _bar(image: NDArray[np.uint8], number: int, found: Bin) -> None:
    if not found.count:
        return
    left, right = number / BINS, (number + 1) / BINS
    cv2.rectangle(image, _at(left, found.accuracy), _at(right, 0), _BAR, cv2.FILLED)
    cv2.rectangle(image, _at(left, found.accuracy), _at(right, 0), INK)
    paper = (255, 255, 255) if found.accuracy > 0.06 else INK  # on the bar, or above where it is too low
    cv2.putText(image, str(found.count), _at(left + 0.004, 0.015), _FONT, 0.32, paper, 1, cv2.LINE_AA)


def _tick(image: NDArray[np.uint8], share: float) -> None:
    """A grid line and its number on both axes."""
    cv2.line(image, _at(0, share), _at(1, share), _GRID)
    cv2.line(image, _at(share, 0), _at(share, 1), _GRID)
    write(image, f"{share:.1f}", (_MARGIN - 28, _at(0, share)[1] + 4), 0.36)
    write(image, f"{share:.1f}", (_at(share, 0)[0] - 10, _at(0, 0)[1] + 18), 0.36)


def _at(x: float, y: float) -> tuple[int, int]:
    return round(_MARGIN + x * _SIDE), round(_MARGIN + (1 - y) * _SIDE)
