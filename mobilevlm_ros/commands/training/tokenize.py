# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm tokenize TEXT... --model DIR -o shards/NAME`: text becomes token shards, for pretraining."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "texts",
        nargs="+",
        type=Path,
        metavar="TEXT",
        help=".txt (documents apart by blank lines) or .jsonl files",
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="checkpoint directory, or a tokenizer.model"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="SHARD", help="folder to make")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(args: argparse.Namespace) -> int:
    """Writes the shard; prints its size."""
    from tqdm import tqdm

    from mobilevlm_ros.errors import DataError
    from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer
    from mobilevlm_ros.training.data.shards import read_documents, write_shard

    if args.output.exists():
        raise DataError(f"{args.output} exists; name another folder")
    tokenizer = Tokenizer(args.model / TOKENIZER if args.model.is_dir() else args.model)
    with tqdm(disable=args.quiet or None, unit="token", unit_scale=True, file=sys.stderr) as bar:
        documents = (text for path in args.texts for text in read_documents(path))
        tokens = write_shard(documents, tokenizer, args.output, bar.update)
    print(f"{args.output}: {tokens:,} tokens")
    return 0
