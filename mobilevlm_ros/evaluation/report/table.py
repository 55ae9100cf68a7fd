# SPDX-License-Identifier: Apache-2.0
"""The report's tables, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mobilevlm_ros.evaluation.benchmarks.registry import BENCHMARKS
from mobilevlm_ros.evaluation.report.published import COLUMNS, PUBLISHED, Row
from mobilevlm_ros.evaluation.report.runs import ModelRuns

_TITLES = {"sqa": "SQA-I", "textvqa": "VQA-T", "mmbench": "MMB-dev", "mme": "MME-P"}


def table(models: Sequence[ModelRuns]) -> str:
    """Our rows with 95 % intervals, then the published ones; dash: not run, star: not the official set."""
    titles = [_TITLES.get(name, BENCHMARKS[name].title) for name in COLUMNS]
    lines = ["| model | " + " | ".join(titles) + " | average |", "|---" * (len(COLUMNS) + 2) + "|"]
    for model in models:
        cells = [_cell(model.row, name, model.intervals.get(name)) for name in COLUMNS]
        cells = [
            cell + " \\*" * (name in model.summaries and not model.official(name))
            for cell, name in zip(cells, COLUMNS)
        ]
        lines.append(_line(model.row, cells))
    lines += [_line(row, [_cell(row, name, None) for name in COLUMNS]) for row in PUBLISHED]
    return "\n".join(lines)


def _line(row: Row, cells: Sequence[str]) -> str:
    average = row.average()
    return f"| {row.name} | " + " | ".join(cells) + f" | {'-' if average is None else f'{average:.1f}'} |"


def _cell(row: Row, name: str, interval: tuple[float, float] | None) -> str:
    if name not in row.scores:
        return "-"
    value = f"{row.scores[name]:.1f}"
    return value if interval is None else f"{value} ({interval[0]:.1f} to {interval[1]:.1f})"


def notes(models: Sequence[ModelRuns]) -> str:
    """Which variant of each benchmark was run, and over how many questions; speed and memory."""
    lines = []
    for name in COLUMNS:
        told = next((m.summaries[name] for m in models if name in m.summaries), None)
        if told is not None:
            title = BENCHMARKS[name].title
            lines.append(f"- {title}: {told.get('protocol')}; {told.get('scored')} answers scored.")
        for model in models:
            if name in model.summaries and not model.official(name):
                asked, size = model.summaries[name].get("questions"), BENCHMARKS[name].size
                lines.append(
                    f"- \\* {model.row.name}: {asked} questions, and the official "
                    f"{BENCHMARKS[name].title} has {size}: not comparable with the published rows."
                )
    for model in models:
        if model.seconds is not None:
            tokens, memory = model.latency.get("tokens"), model.peak_bytes / 2**20
            lines.append(
                f"- {model.row.name}: {model.seconds:.2f} s for a new picture and {tokens} tokens, "
                f"{memory:.0f} MiB at most, on {model.latency.get('machine')}."
            )
    return "\n".join(lines)
