# SPDX-License-Identifier: Apache-2.0
"""Reads the files of benchmarks/results, and writes Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, with the line breaks around it that let it stand between two marks."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(
        "|" + "|".join(f" {cell} " if cell != "---" else cell for cell in line) + "|" for line in lines
    )
    return f"\n\n{text}\n\n"


def results(name: str) -> Any:
    """A results file: what its JSON says, or the tables of its Markdown, each a list of rows by column."""
    text = (RESULTS / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else markdown_tables(text)


def markdown_tables(text: str) -> list[list[dict[str, str]]]:
    """The tables of a page."""
    tables: list[list[dict[str, str]]] = []
    head: list[str] | None = None
    for line in text.splitlines():
        cells = (
            [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None
        )
        if cells is None:
            head = None
        elif head is None:
            head = cells
            tables.append([])
        elif not set(line) <= set("|-: "):
            tables[-1].append(dict(zip(head, cells)))
    return tables


def row(tables: list[list[dict[str, str]]], column: str, **values: str) -> dict[str, str]:
    """The last row with these values that has this column. Raises KeyError where there is none."""
    found = [r for t in tables for r in t if column in r and all(r.get(k) == v for k, v in values.items())]
    if not found:
        raise KeyError(f"no row with {values} and a column {column!r}")
    return found[-1]


def soak_sentence(told: dict[str, Any]) -> str:
    """A soak in words: its length, what was answered, what grew."""
    counts, growth, last = told["counts"], told["slope_per_hour"], told["samples"][-1]
    cut = f", {counts['cut off']} on their way when it was ended" if counts.get("cut off") else ""
    per_hour = [growth[f"{of}, after 50%"] for of in ("private", "threads", "descriptors")]
    return (
        f"{told['minutes']:.0f} minutes: {counts['answered']} of {counts['sent']} questions answered{cut}; "
        f"faults: {sum(told['faults'].values())}. Private memory: {last['private']:.0f} MiB at the end, "
        f"growth {per_hour[0]:+.1f} MiB/h in the last half, {growth['private, after 75%']:+.1f} in the last "
        f"quarter. Threads, descriptors: {per_hour[1]:+.1f} and {per_hour[2]:+.1f} per hour"
    )
