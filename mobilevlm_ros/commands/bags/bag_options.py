# SPDX-License-Identifier: Apache-2.0
"""What `caption-bag`, `ask-bag` and `monitor-bag` have in common: options, the run, what is printed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import MobileVLMError, OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.bags.job.job import Maker, Model, Options
    from mobilevlm_ros.bags.records import Record
    from mobilevlm_ros.bags.running.summary import Summary

BAG_HELP = (
    "a recording: .mcap, .db3 (rosbag2) or .bag (ROS 1), or the directory of one; several are done one after "
    "the other"
)

PLOT_HERE = Path()
"""`--plot` without a name."""


def add_selection(parser: argparse.ArgumentParser, every: str) -> None:
    """Which frames: `--camera`, `--every`, `--novelty`, `--from`, `--to`, `--encoding`."""
    chosen = parser.add_argument_group("which frames")
    chosen.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="TOPIC",
        help="an image topic, or NAME=TOPIC; repeatable (default: every colour camera of the recording)",
    )
    chosen.add_argument("--every", type=float, metavar="SECONDS", help=every)
    chosen.add_argument(
        "--novelty",
        type=float,
        default=0.0,
        metavar="D",
        help="only frames that differ so much from the last one that was asked about, 0 to 1; 0.05 sees what "
        "comes, goes or moves (default: 0, all)",
    )
    when = "seconds from the recording's start, HH:MM[:SS], a date and time (ISO 8601), or seconds since 1970"
    chosen.add_argument("--from", dest="start", metavar="TIME", help=f"first moment: {when}")
    chosen.add_argument("--to", dest="end", metavar="TIME", help="last moment, likewise")
    chosen.add_argument(
        "--encoding",
        action="append",
        default=[],
        metavar="SOURCE=TARGET",
        help="how to read an encoding that names numbers only, as in 16UC1=mono16; repeatable",
    )


def add_output(parser: argparse.ArgumentParser, required: bool) -> None:
    """`-o`, `--overwrite`, `--json`, `--quiet`."""
    without = "" if required else " (default: print, keep nothing)"
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=required,
        metavar="OUT",
        help=f"an .mcap, or a directory for one of each recording; JSON Lines are written beside it{without}",
    )
    options.add_overwrite(parser)
    options.add_json(parser, "the summary, or without -o each record,")
    options.add_quiet(parser)


def add_ray(parser: argparse.ArgumentParser) -> None:
    """`--ray`, `--workers`."""
    fleet = parser.add_argument_group("on many machines")
    fleet.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="do it on a Ray cluster: its address, auto (the one of this machine), or local (start one here)",
    )
    fleet.add_argument(
        "--workers", type=int, default=2, metavar="N", help="copies of the model at work (default: 2)"
    )
    fleet.add_argument(
        "--worker-gpus", type=float, default=0.0, metavar="N", help="GPUs of each of them (default: 0)"
    )


def add_bag_plot(parser: argparse.ArgumentParser) -> None:
    """`--plot [PNG]`."""
    parser.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=PLOT_HERE,
        metavar="PNG",
        help="draw the probabilities over time (default name: beside the output, or that of the recording)",
    )


def selection_of(args: argparse.Namespace) -> Options:
    """What the user said about frames."""
    from mobilevlm_ros.bags.job.job import Options

    return Options(
        tuple(args.camera), args.every, args.novelty, args.start, args.end, tuple(args.encoding)
    ).check()


def model_of(args: argparse.Namespace) -> Model:
    """What the user said about the model."""
    from mobilevlm_ros.bags.job.job import Model

    return Model(None if args.bundle is None else str(args.bundle), args.backend, args.threads)


def check_installed() -> None:
    """Raises OptionError where the libraries that read recordings are missing."""
    for name in ("rosbags", "mcap"):
        if importlib.util.find_spec(name) is None:
            raise OptionError(
                f"recordings need {name}, which answering does not; pip install 'mobilevlm_ros[bags]'"
            )


def check_places(args: argparse.Namespace, bags: Sequence[Path]) -> None:
    """Raises OutputError, before a model is loaded, where an output or a plot cannot be written."""
    from mobilevlm_ros.bags.output.places import outputs
    from mobilevlm_ros.files.atomic import check_place

    targets = {} if args.output is None else outputs(bags, args.output, f".{args.kind}s.mcap")
    for bag in bags:
        if bag in targets:
            check_place(targets[bag])
        _plot(args, bag, targets.get(bag))


def run_jobs(args: argparse.Namespace, bags: Sequence[Path], make: Maker, model_runtime: Any) -> int:
    """Does the job of each recording and prints what became of it. Returns the exit status.

    Args:
        make: see `mobilevlm_ros.bags.job.job`.
        model_runtime: the loaded model.
    """
    from mobilevlm_ros.bags.output.places import outputs
    from mobilevlm_ros.bags.running.answering import Answerer
    from mobilevlm_ros.bags.running.run import run
    from mobilevlm_ros.bags.running.summary import Summary

    kind = args.kind
    targets: dict[Path, Path] = {}
    if args.output is not None:
        targets = outputs(bags, args.output, f".{kind}s.mcap")
    if args.ray is not None:
        from mobilevlm_ros.bags.running.ray_run import Cluster, run_on_ray

        if args.output is None:
            raise OptionError("--ray needs -o: results come in no order, and a run must be able to go on")
        cluster = Cluster(args.ray, args.workers, args.worker_gpus)
        summaries = run_on_ray(targets, make, cluster, overwrite=args.overwrite, quiet=args.quiet)
        for told in summaries:
            if not told.error:
                _plot_file(args, Path(told.bag), Path(told.output))
        return _tell(args, summaries)
    summaries = []
    for bag in bags:
        output = targets.get(bag)
        plot = _plot(args, bag, output)
        try:
            summary = run(
                bag,
                output,
                make,
                lambda job: Answerer(job, model_runtime),
                overwrite=args.overwrite,
                quiet=args.quiet,
                on_record=_Listener(args, plot),
            )
        except OptionError:
            raise
        except MobileVLMError as error:
            if len(bags) == 1:
                raise
            summaries.append(Summary(str(bag), str(output or ""), kind, error=str(error)))
            continue
        if plot is not None and not summary.already_done:
            plot.write()
        summaries.append(summary)
    return _tell(args, summaries)


class _Listener:
    """Prints records where nothing is written, and draws them."""

    def __init__(self, args: argparse.Namespace, plot: Any) -> None:
        self._prints = args.output is None
        self._json = args.json
        self._plot = plot

    def __call__(self, record: Record) -> None:
        from mobilevlm_ros.bags.records import to_line

        if self._plot is not None:
            self._plot.add(record)
        if not self._prints:
            return
        if self._json:
            print(to_line(record), flush=True)
        elif record.is_event:
            print(_line(record), flush=True)


def _line(record: Record) -> str:
    when = datetime.fromtimestamp(record.time_ns / 1e9).isoformat(" ", "milliseconds")
    camera = f" {record.camera}" if record.camera else ""
    text = record.text or "(not sure enough)"
    sure = record.confidence if record.probability is None else record.probability
    return f"{when}{camera}  {text}  ({sure:.2f})"


def _plot(args: argparse.Namespace, bag: Path, output: Path | None) -> Any:
    path = getattr(args, "plot", None)
    if path is None:
        return None
    from mobilevlm_ros.bags.output.plot import ProbabilityPlot

    if path == PLOT_HERE:
        stem = bag.resolve().name.split(".")[0]
        path = Path(f"{stem}.{args.kind}s.png") if output is None else output.with_suffix(".png")
    elif len(args.bags) > 1:
        raise OptionError("--plot names one picture for several recordings: leave the name out")
    return ProbabilityPlot(path, overwrite=args.overwrite)


def _plot_file(args: argparse.Namespace, bag: Path, output: Path) -> None:
    from mobilevlm_ros.bags.output.files import lines_path
    from mobilevlm_ros.bags.records import read_records

    plot = _plot(args, bag, output)
    if plot is not None:
        plot.write(read_records(lines_path(output)))


def _tell(args: argparse.Namespace, summaries: Sequence[Summary]) -> int:
    """The summary: on stdout, but where that holds the records. Returns the exit status."""
    failed = [summary for summary in summaries if summary.error]
    for summary in failed:
        print(f"mobilevlm: error: {summary.error}", file=sys.stderr)
    if args.json and args.output is not None:
        print(json.dumps({"recordings": [summary.as_dict() for summary in summaries]}, ensure_ascii=False))
        return int(bool(failed))
    stream = sys.stderr if args.output is None else sys.stdout
    for summary in summaries:
        if not summary.error:
            print("\n".join(summary.lines()), file=stream)
    return int(bool(failed))
