# SPDX-License-Identifier: Apache-2.0
"""What an exam leaves to look at: the failures with their pictures, and two diagrams."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.drawing import INK, write
from mobilevlm_ros.evaluation.exam.score import Marked, abstention_curve
from mobilevlm_ros.processing.image_file import read_picture

_WIDTH = 280  # pixels of a thumbnail
_SIDE, _MARGIN = 360, 56
_LINE, _GRID = (176, 114, 76), (225, 225, 225)  # BGR
_STYLE = (
    "body{font:14px sans-serif;margin:20px}main{display:flex;flex-wrap:wrap;gap:16px}"
    f"figure{{width:{_WIDTH}px;margin:0;border:1px solid #ccc;padding:8px}}img{{width:100%}}"
)


def contact_sheet(marked: Sequence[Marked], title: str) -> str:
    """An HTML page that needs nothing else: every answer without full credit, the surest first."""
    wrong = sorted((m for m in marked if m.credit < 1), key=lambda m: -m.confidence)
    figures = "\n".join(_figure(m) for m in wrong)
    head = f"{html.escape(title)}: {len(wrong)} of {len(marked)} answers without full credit"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{head}</title><style>{_STYLE}</style>'
        f"<h1>{head}</h1><p>The surest come first.</p><main>\n{figures}\n</main></html>\n"
    )


def _figure(m: Marked) -> str:
    pictures = "".join(f'<img alt="" src="{_source(path)}">' for path in m.question.images)
    wanted = " | ".join(dict.fromkeys(m.question.answers))
    rows = (
        f"<b>{html.escape(m.question.question)}</b>",
        f"expected: {html.escape(wanted)}",
        f"answered: {html.escape(m.text) or '(nothing)'} ({m.confidence:.0%} sure, credit {m.credit:.2f})",
        f"row {m.question.row}, id {html.escape(m.question.id)}, {html.escape(', '.join(m.question.tags))}",
    )
    return f"<figure>{pictures}<p>{'<br>'.join(rows)}</p></figure>"


def _source(path: Path) -> str:
    """A small copy of a picture, inside the page."""
    image = read_picture(path)
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    small = cv2.resize(image, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def abstention_plot(marked: Sequence[Marked]) -> NDArray[np.uint8]:
    """Accuracy over coverage: u8 [H, W, 3], BGR."""
    image = np.full((_SIDE + 2 * _MARGIN, _SIDE + 2 * _MARGIN, 3), 255, np.uint8)
    for tick in range(6):
        share = tick / 5
        cv2.line(image, _at(0, share), _at(1, share), _GRID)
        cv2.line(image, _at(share, 0), _at(share, 1), _GRID)
        write(image, f"{share:.1f}", (_MARGIN - 28, _at(0, share)[1] + 4), 0.36)
        write(image, f"{share:.1f}", (_at(share, 0)[0] - 10, _at(0, 0)[1] + 18), 0.36)
    cv2.rectangle(image, _at(0, 1), _at(1, 0), INK)
    points = np.array([_at(c, a) for _, c, a in abstention_curve(marked)], np.int32)
    cv2.polylines(image, [points], False, _LINE, 2, cv2.LINE_AA)
    for x, y in points:
        cv2.circle(image, (int(x), int(y)), 2, _LINE, cv2.FILLED)
    write(image, "accuracy of what is answered", (_MARGIN - 46, _MARGIN - 8), 0.4)
    write(image, "coverage: share of questions answered", (_MARGIN, _SIDE + 96), 0.4)
    return image


def _at(x: float, y: float) -> tuple[int, int]:
    return round(_MARGIN + x * _SIDE), round(_MARGIN + (1 - y) * _SIDE)
