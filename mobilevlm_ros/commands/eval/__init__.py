# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm eval WHAT`: how often a model answers right. Each WHAT is a module of this package."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

BENCHMARKS = {
    "gqa": "GQA test-dev balanced: scenes, objects, attributes",
    "sqa": "ScienceQA test: multiple choice, half of it with pictures",
    "textvqa": "TextVQA validation: reading text in pictures",
    "pope": "POPE: does it see what is not there?",
    "mme": "MME: yes or no, 14 tasks",
    "mmbench": "MMBench-dev: multiple choice, every rotation of the options",
}
KINDS = {
    **BENCHMARKS,
    "all": "every benchmark whose folder is below --data, then the report",
    "report": "our rows beside the published ones, as a table and a picture",
    "vqa": "your own exam: pictures, questions and answers from a JSON or CSV file",
    "language": "the language model alone, by lm-evaluation-harness: the paper's table 3",
    "compare": "whether one model's answers are better than another's, or it is luck",
    "nano": "nano's exam: simulated scenes that no training has seen",
}
"""What can be examined, as `mobilevlm eval --help` lists it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    for name, text in KINDS.items():
        command = kinds.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _module(name).add_arguments(command)


def main(args: argparse.Namespace) -> int:
    """Runs one kind; returns the exit status."""
    status: int = _module(args.kind).main(args)
    return status


def _module(kind: str) -> Any:
    name = "benchmark" if kind in BENCHMARKS else {"all": "everything"}.get(kind, kind)
    return importlib.import_module(f"mobilevlm_ros.commands.eval.{name}")
