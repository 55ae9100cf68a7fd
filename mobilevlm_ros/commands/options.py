# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs have, each with one name, one meaning and one help text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

Parser: TypeAlias = "argparse.ArgumentParser | argparse._ArgumentGroup"

SHIPPED = "the small model that comes with the package"


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """`--bundle DIR`, None where it is not given."""
    parser.add_argument(
        "--bundle", type=Path, metavar="BUNDLE", help=f"bundle directory, or nano (default: {SHIPPED})"
    )


def add_threads(parser: Parser, default: str = "one per physical core") -> None:
    """`--threads N`; 0 for the default, which training has another of."""
    parser.add_argument("--threads", type=int, default=0, help=f"CPU threads (default: {default})")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """`--backend NAME` and `--threads N`: what `load_runtime` takes beside the bundle."""
    parser.add_argument("--backend", default="auto", help="what runs the model (default: auto)")
    add_threads(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The argument CHECKPOINT, a directory or hub id, and `--revision`."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="directory of a MobileVLM checkpoint, or its hub id, e.g. mtgv/MobileVLM_V2-1.7B",
    )
    add_revision(parser)


def add_revision(parser: argparse.ArgumentParser) -> None:
    """`--revision`, of a hub id."""
    parser.add_argument("--revision", help="branch, tag or commit of a hub id (default: main)")


def add_output(parser: argparse.ArgumentParser, metavar: str, help_text: str, *overwrite: str) -> None:
    """`-o OUTPUT` and `--overwrite`, with other names for it."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar=metavar, help=help_text)
    add_overwrite(parser, *overwrite)


def add_overwrite(parser: argparse.ArgumentParser, *names: str) -> None:
    """`--overwrite`, and other names for it."""
    parser.add_argument(
        *names,
        "--overwrite",
        action="store_true",
        dest="overwrite",
        help="replace what is there, once the new one is complete; what others have put beside it is never "
        "deleted",
    )


def add_plot(parser: argparse.ArgumentParser, help_text: str) -> None:
    """`--plot PNG` and `--overwrite`."""
    parser.add_argument("--plot", type=Path, metavar="PNG", help=help_text)
    add_overwrite(parser)


def check_folder(folder: Path) -> None:
    """Raises OutputError, before long work, when nothing can be written into a folder, there or not."""
    from mobilevlm_ros.files.atomic import check_place

    check_place(folder / "answers.jsonl", parents=True)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """`--quiet`: no progress bar."""
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar (there is none without a terminal)"
    )


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """`--json`: the result on stdout as one JSON object."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")
