# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm merge RUN -o CHECKPOINT`: adapters and their base become one checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mobilevlm_ros.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="run folder of `train lora`, or adapters that the official code wrote",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="CHECKPOINT", help="checkpoint directory to make"
    )
    parser.add_argument(
        "--base", help="checkpoint or hub id that the adapters belong to (default: as they say)"
    )
    parser.add_argument("--vision-tower", help="CLIP directory or hub id, for a base without a tower")
    parser.add_argument(
        "--tokenizer", type=Path, help="tokenizer.model, for a base without one (default: the base's, RUN's)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the weights written; 16 bits halve the size and round (default: float32)",
    )
    options.add_json(parser, "what was written")


def main(args: argparse.Namespace) -> int:
    """Merges; prints where."""
    import torch

    from mobilevlm_ros.training.run.results import merge

    out = merge(
        args.run,
        args.output,
        base=args.base,
        vision_tower=args.vision_tower,
        tokenizer=args.tokenizer,
        dtype=getattr(torch, args.dtype),
    )
    if args.json:
        print(json.dumps({"checkpoint": str(out), "dtype": args.dtype}))
    else:
        print(f"{out}: merged; now: mobilevlm build {out} -o BUNDLE")
    return 0
