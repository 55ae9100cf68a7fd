# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm export-gguf CHECKPOINT -o DIRECTORY`."""

from __future__ import annotations

import argparse
import json
import sys

from mobilevlm_ros.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_checkpoint(parser)
    options.add_output(parser, "DIRECTORY", "where the files go")
    parser.add_argument(
        "--type",
        choices=("f32", "f16", "q8_0", "q4_0"),
        default="f16",
        help="of the language model's matrices (default: f16)",
    )
    options.add_quiet(parser)
    options.add_json(parser, "the files")


def main(args: argparse.Namespace) -> int:
    """Exports; prints the files' paths."""
    from tqdm import tqdm

    from mobilevlm_ros.checkpoints.gguf.writer import export_gguf

    with tqdm(disable=args.quiet or None, unit="tensor", leave=False, file=sys.stderr) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.update(done - bar.n)

        paths = export_gguf(
            args.checkpoint,
            args.output,
            revision=args.revision,
            type_name=args.type,
            overwrite=args.overwrite,
            progress=progress,
        )
    if args.json:
        print(json.dumps({path.name: path.stat().st_size for path in paths}))
    else:
        for path in paths:
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
