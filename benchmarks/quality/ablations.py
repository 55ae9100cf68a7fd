# SPDX-License-Identifier: Apache-2.0
"""The paper's ablations at nano's size: what carries over when everything is a thousand times smaller?

    python benchmarks/quality/ablations.py --work ablations/ -o ablations.json
    python benchmarks/quality/ablations.py --work ablations/ -o ablations.json --minutes 30 --only "projector"
    python benchmarks/quality/ablations.py --work ablations/ -o ablations.json --table   # trains nothing

Each row of the tables is trained with the same budget for each of three seeds, from nano's frozen tower,
and scored by exactly right answers to the same questions about scenes that no training has seen. Cells are
kept in the work folder: started again, the benchmark goes on with those that are missing. RESULT.json and
RESULT.md say which cells ran.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from ablation_cells import REDUCED, Bench, Budget, Variant, run_cell

NANO = Path(__file__).resolve().parents[2] / "models" / "nano"
SEEDS = (1, 2, 3)

TABLES: dict[str, dict[str, Variant]] = {
    "projector (paper: Table 9)": {
        "[PW]x2: an MLP": Variant(strides=()),
        "[PW]x0 [DW s1 PW]x1 [DW s2 PW]x1": Variant(pointwise=0),
        "[PW]x2 [DW s1 PW]x1 [DW s2 PW]x1: LDP": Variant(),
        "[PW]x2 [DW s1 PW]x3 [DW s2 PW]x1": Variant(strides=(1, 1, 1, 2)),
        "[PW]x2 [DW s2 PW]x1 [DW s1 PW]x1": Variant(strides=(2, 1)),
    },
    "fewer tokens (Table 11)": {
        "LDP": Variant(),
        f"MLP, input reduced to {REDUCED} px": Variant(strides=(), side=REDUCED),
    },
    "encoder and tokens (Table 7)": {
        "1 layer, MLP": Variant(layers=1, strides=()),
        "2 layers, MLP": Variant(layers=2, strides=()),
        "4 layers, MLP": Variant(strides=()),
        "1 layer, LDP": Variant(layers=1),
        "2 layers, LDP": Variant(layers=2),
        "4 layers, LDP": Variant(),
    },
    "language model and template (Table 10)": {
        "random weights, v1": Variant(language="random"),
        "text, no chat tuning, llava_llama_2": Variant(language="text", template="llava_llama_2"),
        "text, no chat tuning, v1": Variant(language="text"),
        "text and chat tuning, llava_llama_2": Variant(language="chat", template="llava_llama_2"),
        "text and chat tuning, v1": Variant(language="chat"),
    },
}
"""Rows by table. Equal variants of two tables are one cell."""


def cell_name(variant: Variant, seed: int, budget: Budget, identity: str) -> str:
    """The file name of a cell's marks: everything that decides them."""
    what = "_".join(f"{value}" for value in (*asdict(variant).values(), *asdict(budget).values()))
    return "".join(c if c.isalnum() or c in "_.-" else "-" for c in f"{identity}_{what}_seed{seed}") + ".json"


def cells(only: str) -> list[tuple[Variant, int]]:
    """Every cell once: all rows with the first seed before any with the second."""
    rows = [v for title, variants in TABLES.items() if only in title for v in variants.values()]
    return [(variant, seed) for seed in SEEDS for variant in dict.fromkeys(rows)]


def summary(work: Path, budget: Budget, identity: str) -> dict[str, dict[str, Any]]:
    """Marks of each row by table: mean and spread over the seeds that ran."""
    found: dict[str, dict[str, Any]] = {}
    for title, variants in TABLES.items():
        for row, variant in variants.items():
            files = [work / cell_name(variant, seed, budget, identity) for seed in SEEDS]
            marks = [json.loads(file.read_text()) for file in files if file.is_file()]
            shares = [mark["accuracy"] for mark in marks]
            found.setdefault(title, {})[row] = {
                "tokens": variant.tokens,
                "seeds": len(marks),
                "accuracy": statistics.mean(shares) if shares else None,
                "spread": max(shares) - min(shares) if len(shares) > 1 else None,
                "projector_parameters": marks[0]["projector_parameters"] if marks else None,
                "seconds": statistics.mean(mark["seconds"] for mark in marks) if marks else None,
            }
    return found


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """The tables, with "not run" where no seed ran."""
    lines = []
    for title, rows in found.items():
        lines += [f"## {title}", "", "| row | tokens | projector | right | spread | seeds | seconds |"]
        lines.append("|---|---|---|---|---|---|---|")
        for row, one in rows.items():
            if not one["seeds"]:
                lines.append(f"| {row} | {one['tokens']} | | not run | | 0 | |")
                continue
            spread = "" if one["spread"] is None else f"{100 * one['spread']:.1f}"
            lines.append(
                f"| {row} | {one['tokens']} | {one['projector_parameters'] / 1e3:.0f} k "
                f"| {one['accuracy']:.1%} | {spread} | {one['seeds']} | {one['seconds']:.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the cells that are missing, and writes the table of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for what is kept between runs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON to write; the table beside it")
    parser.add_argument(
        "--nano", type=Path, default=NANO, help="checkpoint whose tower and language are used"
    )
    parser.add_argument("--steps", type=int, default=1000, help="of each cell")
    parser.add_argument("--scenes", type=int, default=2000, help="to train on")
    parser.add_argument("--scored", type=int, default=400, help="scenes to score on")
    parser.add_argument("--rows", type=int, default=8, help="pictures per step, about five questions each")
    parser.add_argument("--language-steps", type=int, default=500, help="of text, and of chat tuning")
    parser.add_argument("--only", default="", help="tables whose title has this in it")
    parser.add_argument("--minutes", type=float, default=0, help="begin no further cell after so long")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    budget = Budget(
        steps=args.steps,
        rows=args.rows,
        scenes=args.scenes,
        scored=args.scored,
        language_steps=args.language_steps,
    )
    args.work.mkdir(parents=True, exist_ok=True)
    began = monotonic()
    bench = Bench(args.nano, args.work, budget)
    for variant, seed in cells(args.only) if not args.table else ():
        file = args.work / cell_name(variant, seed, budget, bench.identity)
        if file.is_file():
            continue
        if args.minutes and monotonic() - began > 60 * args.minutes:
            break
        marks = run_cell(bench, variant, seed)
        file.write_text(json.dumps(marks))
        print(f"{variant}, seed {seed}: {marks['accuracy']:.1%}, {marks['seconds']} s", flush=True)
    found = summary(args.work, budget, bench.identity)
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {args.threads} thread, torch {torch.__version__}",
        "nano": bench.identity,
        "budget": asdict(budget),
        "cells": {"run": sum(row["seeds"] for rows in found.values() for row in rows.values())},
        "tables": found,
    }
    result["cells"]["of"] = len(SEEDS) * sum(map(len, TABLES.values()))
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(found))
    print(markdown(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
