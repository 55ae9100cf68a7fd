# SPDX-License-Identifier: Apache-2.0
"""The report's picture: scores beside the published ones, and accuracy against time and memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS
from mobilevlm_ros.evaluation.report.published import COLUMNS, PUBLISHED
from mobilevlm_ros.evaluation.report.runs import ModelRuns
from mobilevlm_ros.files.atomic import check_file, write_file

_MARKER = 40.0  # points squared, and more with memory


def check(path: Path, *, overwrite: bool = False) -> None:
    """For before the long work that a picture is of; raises as `draw`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError(f"--plot needs matplotlib ({error}); pip install 'mobilevlm_ros[eval]'") from error
    ending = path.suffix[1:].lower() or "png"
    if ending not in Figure().canvas.get_supported_filetypes():
        raise OptionError(f"cannot write the plot {path}: name a .png or .svg file")
    check_file(path, overwrite=overwrite)


def draw(models: Sequence[ModelRuns], path: Path, *, overwrite: bool = False) -> None:
    """Writes the picture. Raises OptionError without matplotlib or for an ending that it does not know, and
    OutputError for a file that it cannot write, or that is there already without `overwrite`."""
    check(path, overwrite=overwrite)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _scores(left, models)
    _pareto(right, models)
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format=path.suffix[1:].lower() or "png")
    write_file(path, content.getvalue(), overwrite=overwrite)


def _scores(axes: Any, models: Sequence[ModelRuns]) -> None:
    """Each benchmark's headline in percent (MME perception of 2000), with intervals; published as dots."""
    width = 0.8 / max(1, len(models))
    for number, model in enumerate(models):
        for at, name in enumerate(COLUMNS):
            if name not in model.row.scores:
                continue
            scale = 20 if name == "mme" else 1
            value = model.row.scores[name] / scale
            low, high = model.intervals.get(name, (value * scale, value * scale))
            axes.bar(
                at + (number - (len(models) - 1) / 2) * width,
                value,
                width,
                yerr=[[max(0.0, value - low / scale)], [max(0.0, high / scale - value)]],
                color=f"C{number}",
                hatch=None if model.official(name) else "//",
                alpha=1.0 if model.official(name) else 0.5,
                label=model.row.name if name == next(iter(model.row.scores)) else None,
                capsize=2,
            )
    for row, marker in zip(PUBLISHED, "osv^D*"):
        values = [row.scores[name] / (20 if name == "mme" else 1) for name in COLUMNS]
        axes.scatter(range(len(COLUMNS)), values, marker=marker, s=14, color="0.35", label=row.name, zorder=3)
    axes.set_xticks(range(len(COLUMNS)), [BENCHMARKS[name].title for name in COLUMNS], rotation=20)
    axes.set_ylabel("score, percent (MME / 20)")
    axes.set_ylim(0, 100)
    axes.legend(fontsize=7, ncol=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    axes.set_title(
        "bars: ours with 95 % intervals (hatched: not the official questions); marks: published", size=9
    )


def _pareto(axes: Any, models: Sequence[ModelRuns]) -> None:
    """Mean of what all models have been run on, against seconds; a marker's area is memory."""
    timed = [model for model in models if model.seconds]
    shared = [name for name in COLUMNS if timed and all(name in model.row.scores for model in timed)]
    axes.set_title("accuracy against time; area: peak memory", size=9)
    axes.margins(0.35)
    axes.set_xlabel("seconds for a new picture and its answer")
    if not shared:
        axes.text(
            0.5, 0.5, "no benchmark that all\nmeasured models have run", ha="center", transform=axes.transAxes
        )
        return
    points = []
    for number, model in enumerate(timed):
        score = sum(model.row.scores[n] / (20 if n == "mme" else 1) for n in shared) / len(shared)
        seconds = model.seconds or 0.0
        points.append((seconds, score))
        area = _MARKER + model.peak_bytes / 2**20 / 10
        axes.scatter(seconds, score, s=area, color=f"C{number}", alpha=0.7)
        axes.annotate(
            model.row.name,
            (seconds, score),
            fontsize=7,
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
        )
    front = pareto_front(points)
    axes.plot([x for x, _ in front], [y for _, y in front], color="0.6", linewidth=1, zorder=0)
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    axes.set_ylim(top=min(high, 100 + 0.1 * (100 - low)))  # room for the name of a model with all right
    axes.set_ylabel("mean of " + ", ".join(BENCHMARKS[name].title for name in shared))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (seconds, score) points that no other beats in both, fastest first."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front
