# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm train replay STAGE.json --checkpoints CKPT -o OUT.json`: equality with the official trainer."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mobilevlm_ros.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "stage_file", type=Path, metavar="STAGE.json", help="a stage's reference: arguments and batches"
    )
    parser.add_argument(
        "--checkpoints", type=Path, required=True, metavar="CKPT", help="folder that <ckpt> means in the file"
    )
    options.add_output(parser, "OUT.json", "file to write")


def main(args: argparse.Namespace) -> int:
    """Writes losses, rates, gradient norms and what changed; prints a summary."""
    from mobilevlm_ros.files.atomic import check_file, write_file
    from mobilevlm_ros.training.replay import replay

    check_file(args.output, overwrite=args.overwrite)
    result = replay(args.stage_file, args.checkpoints.resolve())
    write_file(args.output, (json.dumps(result, indent=1) + "\n").encode(), overwrite=args.overwrite)
    losses = ", ".join(f"{step['loss']:.6f}" for step in result["steps"])
    print(f"{args.output}: losses {losses}; {len(result['changed'])} tensors changed")
    return 0
