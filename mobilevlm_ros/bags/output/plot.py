# SPDX-License-Identifier: Apache-2.0
"""Probabilities over the time of a recording, as a picture."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobilevlm_ros.bags.records import Record
from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.files.atomic import check_file, write_file

ENDINGS = (".png", ".svg", ".pdf")
_SECOND = 1e9
_ROW = 2.2  # inches of height for each question


@dataclass
class _Curves:
    """One question about one camera."""

    times: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)


class ProbabilityPlot:
    """Collects records and draws them: a row for each question and camera.

    Choices have a line each; a monitor's row is shaded while it is raised; free text shows its confidence.

    Args:
        path: of the picture (.png, .svg or .pdf).
        overwrite: replace what is there.

    Raises:
        OptionError: the ending is not known, or matplotlib is missing.
        OutputError: the file is there already, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        if path.suffix.lower() not in ENDINGS:
            raise OptionError(f"--plot is {str(path)!r}: name a {', '.join(ENDINGS)} file")
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            raise OptionError(
                f"--plot needs matplotlib ({error}); pip install 'mobilevlm_ros[eval]'"
            ) from error
        check_file(path, overwrite=overwrite)
        self._path, self._overwrite = path, overwrite
        self._start: int | None = None
        self._rows: dict[str, _Curves] = {}

    def add(self, record: Record) -> None:
        """Takes a record; they come in the order of the recording."""
        if self._start is None:
            self._start = record.bag_time_ns
        what = f"{record.monitor}: {record.question}" if record.monitor else record.question
        curves = self._rows.setdefault(f"{record.camera}: {what}" if record.camera else what, _Curves())
        curves.times.append((record.bag_time_ns - self._start) / _SECOND)
        curves.states.append(record.state)
        if record.probability is not None:
            values = {"probability": record.probability}
        else:
            values = record.probabilities or {"confidence": record.confidence}
        for name, value in values.items():
            curves.values.setdefault(name, []).append(value)

    def write(self, records: Iterable[Record] = ()) -> None:
        """Draws what there is."""
        from matplotlib.figure import Figure

        for record in records:
            self.add(record)
        count = max(1, len(self._rows))
        figure = Figure(figsize=(10, 0.8 + _ROW * count), layout="constrained")
        axes = figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0]
        for axis, (title, curves) in zip(axes, self._rows.items()):
            _draw(axis, title, curves)
        axes[-1].set_xlabel("seconds since the first frame")
        content = io.BytesIO()
        figure.savefig(content, dpi=120, format=self._path.suffix[1:].lower())
        write_file(self._path, content.getvalue(), overwrite=self._overwrite)


def _draw(axis: Any, title: str, curves: _Curves) -> None:
    for name, values in curves.values.items():
        # Steps: nothing is known between two frames, least of all a slope.
        line = {"drawstyle": "steps-post", "linewidth": 1, "marker": ".", "markersize": 4}
        axis.plot(curves.times[: len(values)], values, label=name, **line)
    label = "raised"
    for start, end in _raised_spans(curves.times, curves.states):
        axis.axvspan(start, end, alpha=0.15, color="C3", linewidth=0, label=label)
        label = "_"  # one entry in the legend
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel("probability")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _raised_spans(times: Sequence[float], states: Sequence[str]) -> list[tuple[float, float]]:
    """(start, end), seconds, of each time in which a monitor is raised: it is until the next frame."""
    spans: list[tuple[float, float]] = []
    for now, state, until in zip(times, states, [*times[1:], *times[-1:]]):
        if state != "raised":
            continue
        if spans and spans[-1][1] == now:
            spans[-1] = (spans[-1][0], until)
        else:
            spans.append((now, until))
    return spans
