# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm bag-to-dataset SOURCE... -o DIR`: a robot's own recordings become training data."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.bags import bag_options
from mobilevlm_ros.errors import OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.bags.records import Record

ANY_ORDER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="files of records (.jsonl) of caption-bag or ask-bag; or recordings, which are captioned, or "
        "asked with --question",
    )
    options.add_output(parser, "DIR", "the data set: train.json, review.csv, images/")
    parser.add_argument(
        "--reviewed",
        type=Path,
        metavar="CSV",
        help="review.csv after a person has corrected answers, deleted rows or written no into keep",
    )
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the pictures, the last ones, for exam.json instead (default: 0)",
    )
    parser.add_argument(
        "--min-confidence", type=float, default=0.0, metavar="P", help="leave out less sure answers"
    )
    parser.add_argument("--png", action="store_true", help="pictures without loss (default: JPEG)")
    parser.add_argument(
        "--bag",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="where a recording of the records lies now, if it was moved; repeatable",
    )
    asking = parser.add_argument_group("asking, where SOURCE is a recording")
    asking.add_argument(
        "--question", action="append", default=[], help="repeatable (default: Describe the scene.)"
    )
    asking.add_argument("--choices", nargs="+", default=[], metavar="CHOICE", help="of each question")
    bag_options.add_selection(parser, "seconds between frames of a camera (default: every frame)")
    options.add_bundle(parser)
    options.add_runtime(parser)
    options.add_json(parser, "the counts")
    options.add_quiet(parser)


def main(args: argparse.Namespace) -> int:
    """Builds; prints what it holds and what to do next."""
    bag_options.check_installed()
    from tqdm import tqdm

    from mobilevlm_ros.bags.dataset.build import KIND, REVIEW, TRAIN, DatasetOptions, build_dataset
    from mobilevlm_ros.files.atomic_directory import check_directory

    check_directory(args.output, KIND, overwrite=args.overwrite)  # before long work
    chosen = DatasetOptions(
        args.png, args.holdout, args.min_confidence, args.bag, tuple(args.encoding), args.reviewed
    ).check()
    with tqdm(desc="pictures", unit="picture", disable=True if args.quiet else None) as bar:
        built = build_dataset(
            _records(args), args.output, chosen, overwrite=args.overwrite, on_picture=lambda: bar.update()
        )
    if args.json:
        print(json.dumps({"output": str(args.output), **vars(built)}))
        return 0
    left_out = [f"{built.unsure} less sure ones"] * bool(built.unsure)
    left_out += [f"{built.bad} pictures that cannot be read"] * bool(built.bad)
    without = f"; left out: {', '.join(left_out)}" if left_out else ""
    held = f", {built.exam} in exam.json" if built.exam else ""
    print(f"{args.output}: {built.train} examples in {TRAIN}{held}, {built.pictures} pictures{without}")
    if args.reviewed is None:
        print(
            f"look through {args.output / REVIEW}, then give the same command with --reviewed and --overwrite"
        )
    print(f"train: mobilevlm train lora --data {args.output / TRAIN} --images {args.output} ...")
    return 0


def _records(args: argparse.Namespace) -> Iterator[Record]:
    from mobilevlm_ros.bags.records import SUFFIX, read_records

    files = [source for source in args.sources if source.suffix == SUFFIX]
    bags = [source for source in args.sources if source.suffix != SUFFIX]
    if (args.question or args.choices) and not bags:
        raise OptionError("--question is for recordings: the records have their questions")
    for file in files:
        yield from read_records(file)
    if bags:
        yield from _asked(args, bags)


def _asked(args: argparse.Namespace, bags: list[Path]) -> Iterator[Record]:
    from mobilevlm_ros.bags.job.job import questions_job
    from mobilevlm_ros.bags.running.answering import Answerer
    from mobilevlm_ros.bags.running.run import run
    from mobilevlm_ros.inference.assistant import CAPTION_PROMPT
    from mobilevlm_ros.inference.types import Request

    requests = [Request(text, choices=tuple(args.choices)) for text in args.question or [CAPTION_PROMPT]]
    kind = "answer" if args.question else "caption"
    chosen, model = bag_options.selection_of(args), bag_options.model_of(args)
    runtime = model.load()
    make = questions_job(kind, requests, chosen, model, runtime.bundle.manifest.model_id)
    for bag in bags:
        said: list[Record] = []
        run(bag, None, make, lambda job: Answerer(job, runtime), quiet=args.quiet, on_record=said.append)
        yield from said
