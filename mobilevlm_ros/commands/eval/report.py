# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval report RUNS`: our rows beside the published ones, as a table and a picture."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from mobilevlm_ros.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "runs", type=Path, metavar="RUNS", help="the folder that runs were written to (--out)"
    )
    options.add_plot(parser, "also draw scores, and accuracy against time")
    options.add_json(parser, "the rows")


def main(args: argparse.Namespace) -> int:
    """The table goes to stdout."""
    return show(args.runs, args.plot, args.json, args.overwrite)


def show(runs: Path, plot: Path | None, as_json: bool, overwrite: bool = False) -> int:
    """Prints every complete run below a folder, and draws it where a picture is asked for."""
    from mobilevlm_ros.evaluation.report.plot import check, draw
    from mobilevlm_ros.evaluation.report.published import PUBLISHED
    from mobilevlm_ros.evaluation.report.runs import find_runs
    from mobilevlm_ros.evaluation.report.table import notes, table

    if plot is not None:
        check(plot, overwrite=overwrite)
    models = find_runs(runs)
    if as_json:
        rows = [
            {
                **dataclasses.asdict(model.row),
                "average": model.row.average(),
                "intervals": model.intervals,
                "latency": model.latency,
            }
            for model in models
        ]
        published = [{**dataclasses.asdict(row), "average": row.average()} for row in PUBLISHED]
        print(json.dumps({"models": rows, "published": published}))
    else:
        print(table(models) + "\n\n" + notes(models))
    if plot is not None:
        draw(models, plot, overwrite=overwrite)
        print(f"drawn: {plot}", file=sys.stderr)
    return 0
