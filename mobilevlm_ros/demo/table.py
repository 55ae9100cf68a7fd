# SPDX-License-Identifier: Apache-2.0
"""The demo's table: one row for each question, wrapped to the width of the terminal."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True)
class TableRow:
    """One question and what became of it; `seconds` from the arrival of the request to the answer."""

    question: str
    answer: str
    truth: str
    confidence: float
    seconds: float
    right: bool


class Table:
    """Text columns share what the numbers leave of the terminal (at least 80, at most 160 characters)."""

    def __init__(self, width: int | None = None) -> None:
        total = width or shutil.get_terminal_size((130, 24)).columns
        room = min(160, max(80, total)) - 24
        self._widths = (room * 36 // 100, room * 34 // 100, room * 30 // 100 - 4)

    def header(self) -> str:
        """Titles and a rule."""
        titles = self._join("  ", ("question", "answer", "truth"), "conf", "ms")
        return f"{titles}\n{'-' * len(titles)}"

    def line(self, row: TableRow) -> str:
        """A row, on several lines where a cell is long."""
        columns = [
            textwrap.wrap(" ".join(text.split()), width) or [""]
            for text, width in zip((row.question, row.answer, row.truth), self._widths, strict=True)
        ]
        lines = []
        for index, cells in enumerate(zip_longest(*columns, fillvalue="")):
            first = index == 0
            mark = ("\u2713 " if row.right else "\u2717 ") if first else "  "
            confidence = f"{row.confidence:.2f}" if first else ""
            lines.append(self._join(mark, cells, confidence, f"{row.seconds * 1000:.0f}" if first else ""))
        return "\n".join(line.rstrip() for line in lines)

    def _join(self, mark: str, cells: tuple[str, ...], confidence: str, milliseconds: str) -> str:
        texts = "  ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        return f"{mark}{texts}  {confidence:>5}  {milliseconds:>6}"
