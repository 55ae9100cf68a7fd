# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm export-gguf CHECKPOINT -o DIRECTORY`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="directory of a MobileVLM checkpoint, or its hub id, e.g. mtgv/MobileVLM_V2-1.7B",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub id (default: main)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIRECTORY", help="where the files go"
    )
    parser.add_argument(
        "--type",
        choices=("f32", "f16", "q8_0", "q4_0"),
        default="f16",
        help="of the language model's matrices (default: f16)",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar (there is none without a terminal)"
    )
    parser.add_argument("--json", action="store_true", help="print the files as JSON")


def main(args: argparse.Namespace) -> int:
    """Exports; prints the files' paths."""
    from tqdm import tqdm

    from mobilevlm_ros.checkpoints.gguf.writer import export_gguf

    with tqdm(disable=args.quiet or None, unit="tensor", leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.update(done - bar.n)

        paths = export_gguf(
            args.checkpoint, args.output, revision=args.revision, type_name=args.type, progress=progress
        )
    if args.json:
        print(json.dumps({path.name: path.stat().st_size for path in paths}))
    else:
        for path in paths:
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
