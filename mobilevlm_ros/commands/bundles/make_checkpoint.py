# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm make-checkpoint --like MODEL --random OUT`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mobilevlm_ros.commands import options

LIKE = ("MobileVLM-1.7B", "MobileVLM-3B", "MobileVLM_V2-1.7B", "MobileVLM_V2-3B", "MobileVLM_V2-7B", "tiny")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--like",
        required=True,
        metavar="MODEL",
        help=f"whose geometry: {', '.join(LIKE)}, or a checkpoint directory or hub id",
    )
    parser.add_argument(
        "--random", action="store_true", required=True, help="with random weights (the only kind)"
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="checkpoint directory to write")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        help="tokenizer.model to put in (default: that of the checkpoint --like names, else the one of the "
        "model that comes with the package)",
    )
    options.add_overwrite(parser)
    options.add_quiet(parser)
    options.add_json(parser, "what was written")


def main(args: argparse.Namespace) -> int:
    """Writes the checkpoint; prints where."""
    import torch
    from tqdm import tqdm

    from mobilevlm_ros.checkpoints.hub import locate
    from mobilevlm_ros.checkpoints.random_weights import CONFIGS, write_random_checkpoint
    from mobilevlm_ros.engine.runtime import shipped_bundle
    from mobilevlm_ros.errors import CheckpointError
    from mobilevlm_ros.model.config import MobileVLMConfig
    from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer

    config, tokenizer = CONFIGS.get(args.like), shipped_bundle() / TOKENIZER
    if config is None:
        if "/" not in args.like and not Path(args.like).exists():
            raise CheckpointError(
                f"--like {args.like} is neither a checkpoint's directory nor one of {', '.join(CONFIGS)}"
            )
        directory = locate(args.like)
        config = MobileVLMConfig.from_directory(directory)
        if (directory / TOKENIZER).is_file():
            tokenizer = directory / TOKENIZER
    tokenizer = args.tokenizer or tokenizer
    Tokenizer(tokenizer).check_fits(config.language.vocab_size)
    count = 0
    with tqdm(disable=args.quiet or None, unit="", unit_scale=True, leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int, what: str) -> None:
            nonlocal count
            count = total
            bar.total = total
            bar.update(done - bar.n)

        write_random_checkpoint(
            config,
            args.output,
            tokenizer,
            seed=args.seed,
            dtype=getattr(torch, args.dtype),
            overwrite=args.overwrite,
            progress=progress,
        )
    if args.json:
        print(
            json.dumps(
                {"checkpoint": str(args.output), "like": args.like, "parameters": count, "seed": args.seed}
            )
        )
    else:
        print(f"{args.output}: {count / 1e6:.1f} M random parameters in the geometry of {args.like}")
    return 0
