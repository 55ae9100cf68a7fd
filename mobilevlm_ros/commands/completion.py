# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm completion bash`: a script that completes verbs and options with the Tab key."""

from __future__ import annotations

import argparse

from mobilevlm_ros.errors import Unsupported

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def main(args: argparse.Namespace) -> int:
    """Prints the script."""
    try:
        import shtab
    except ImportError as error:
        raise Unsupported(
            "`completion` needs shtab: pip install shtab, or pip install '.[completion]' in the source"
        ) from error
    from mobilevlm_ros.commands.verbs import VERBS, add_verb

    parser = argparse.ArgumentParser(prog="mobilevlm")
    verbs = parser.add_subparsers(dest="verb")
    for verb, text in VERBS.items():
        add_verb(verb, verbs.add_parser(verb, help=text))
    print(shtab.complete(parser, args.shell))
    return 0
