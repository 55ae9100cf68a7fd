# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm compile BUNDLE`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from time import perf_counter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="directory built with --backends tensorrt (or tensorrt8)"
    )


def main(args: argparse.Namespace) -> int:
    """Builds what is missing, with progress on stderr; prints where the plans are."""
    from mobilevlm_ros.engine.bundle import Bundle
    from mobilevlm_ros.engine.tensorrt.backend import compile_plans

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    started = perf_counter()
    paths = compile_plans(Bundle.open(args.bundle))
    for path in paths:
        print(
            f"{path}: {path.stat().st_size / 1e6:.1f} MB" if path.exists() else f"{path}: could not be kept"
        )
    print(f"ready in {perf_counter() - started:.0f} s", file=sys.stderr)
    return 0
