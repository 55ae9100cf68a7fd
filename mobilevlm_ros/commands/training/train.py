# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm train WHAT`: each stage of the paper, nano, and the comparison with the official trainer."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

_STAGE = "stage"
WHAT = {
    "lora": (_STAGE, "teach a MobileVLM something new with adapters, from conversations about pictures"),
    "instruct": (_STAGE, "stage 2: questions about pictures teach projector and language model"),
    "align": (_STAGE, "stage 1: captions teach the projector (V1), or projector and language model (V2)"),
    "sft": (_STAGE, "teach a MobileLLaMA to chat, from ShareGPT conversations"),
    "pretrain-llm": (_STAGE, "train a MobileLLaMA from random weights on token shards"),
    "nano": ("nano", "train the embedded default from random weights"),
    "replay": ("replay", "run a stage as a reference of the official trainer says, to compare"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb: those of each thing that can be trained."""
    parsers = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (module, text) in WHAT.items():
        _module(module).add_arguments(
            parsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        )


def main(args: argparse.Namespace) -> int:
    """Runs one of them."""
    status: int = _module(WHAT[args.what][0]).main(args)
    return status


def _module(name: str) -> Any:
    return importlib.import_module(f"mobilevlm_ros.commands.training.{name}")
