# SPDX-License-Identifier: Apache-2.0
"""A picture of where an answer's time goes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.drawing import write
from mobilevlm_ros.evaluation.latency.measure import LatencyReport

_SIZE = (320, 960)  # pixels: height, width
_MARGIN = 40
_BAR = (130, 190)  # rows
_TOP, _ROW = 90, 86  # of the picture of several models: rows above the first, and of each
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
        "encode": f"encode {_time(found.encode)}",
        "prompt": f"prefill {_time(found.prompt)} ({found.prompt_rate:.0f} tok/s)",
        "decode": f"decode {_time(found.decode)} ({found.decode_rate:.1f} tok/s)",
        "sample": f"sample {_time(found.sample)} ({found.sample_rate:.0f} tok/s)",
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


def draw_several(found: Sequence[LatencyReport]) -> NDArray[np.uint8]:
    """A bar for each model, all to one scale, so that lengths compare: u8 [H, 960, 3], BGR."""
    image = np.full((_TOP + _ROW * len(found) + 30, _SIZE[1], 3), 255, np.uint8)
    width = _SIZE[1] - 2 * _MARGIN
    longest = max(report.total for report in found)
    tokens = sorted({report.tokens for report in found})
    write(image, f"from a new picture to {' / '.join(map(str, tokens))} tokens", (_MARGIN, 40), 0.7)
    for number, (part, colour) in enumerate(COLOURS.items()):
        column = _MARGIN + number * 130
        cv2.rectangle(image, (column, 56), (column + 14, 70), colour, cv2.FILLED)
        write(image, "prefill" if part == "prompt" else part, (column + 22, 69), 0.5)
    for number, report in enumerate(found):
        top = _TOP + number * _ROW + 22
        write(image, f"{report.model}: {_time(report.total)}", (_MARGIN, top - 6), 0.5)
        left = 0.0
        for part, colour in COLOURS.items():
            right = left + getattr(report, part) / longest
            corners = [
                (_MARGIN + round(edge * width), row) for edge, row in zip((left, right), (top, top + 24))
            ]
            cv2.rectangle(image, corners[0], corners[1], colour, cv2.FILLED)
            left = right
        parts = [f"encode {_time(report.encode)}", f"prefill {_time(report.prompt)}"]
        parts += [f"decode {_time(report.decode)} ({report.decode_rate:.1f} tok/s)", report.backend]
        parts += [f"peak {report.peak_bytes / 2**20:.0f} MiB"] * bool(report.peak_bytes)
        write(image, ", ".join(parts), (_MARGIN, top + 42), 0.42)
    return image


def _time(seconds: float) -> str:
    """With the unit and the digits that it needs."""
    if seconds >= 1.0:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"
