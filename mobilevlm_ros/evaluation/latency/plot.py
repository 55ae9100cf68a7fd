# SPDX-License-Identifier: Apache-2.0
"""A picture of where an answer's time goes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.drawing import write
from mobilevlm_ros.evaluation.latency.measure import LatencyReport

_SIZE = (320, 960)  # pixels: height, width
_MARGIN = 40
_BAR = (130, 190)  # rows
COLOURS = {
    "encode": (176, 114, 76),
    "prompt": (82, 132, 221),
    "decode": (104, 168, 85),
    "sample": (82, 78, 196),
}


def draw(found: LatencyReport) -> NDArray[np.uint8]:
    """A bar of one answer's total time, split into its parts: u8 [320, 960, 3], BGR."""
    image = np.full((*_SIZE, 3), 255, np.uint8)
    width = _SIZE[1] - 2 * _MARGIN
    title = f"{found.model} on {found.backend}: {found.total:.2f} s for {found.tokens} tokens"
    write(image, title, (_MARGIN, 45), 0.75)
    write(image, found.machine, (_MARGIN, 75), 0.5)
    memory = f"peak memory {found.peak_bytes / 2**20:.0f} MiB"
    size = f"{found.model_bytes / 1e6:.0f} MB, loads in {found.load:.1f} s, {memory}"
    write(image, size, (_MARGIN, 100), 0.5)
    labels = {
        "encode": f"encode {found.encode * 1e3:.0f} ms",
        "prompt": f"prompt {found.prompt * 1e3:.0f} ms ({found.prompt_rate:.0f} tok/s)",
        "decode": f"decode {found.decode:.2f} s ({found.decode_rate:.1f} tok/s)",
        "sample": f"sample {found.sample * 1e3:.0f} ms ({found.sample_rate:.0f} tok/s)",
    }
    left = 0.0
    for number, (part, colour) in enumerate(COLOURS.items()):
        right = left + getattr(found, part) / found.total
        corners = [(_MARGIN + round(edge * width), row) for edge, row in zip((left, right), _BAR)]
        cv2.rectangle(image, corners[0], corners[1], colour, cv2.FILLED)
        left = right
        column, row = _MARGIN + number % 2 * width // 2, 225 + number // 2 * 40
        cv2.rectangle(image, (column, row - 14), (column + 16, row + 2), colour, cv2.FILLED)
        write(image, labels[part], (column + 26, row), 0.55)
    return image
