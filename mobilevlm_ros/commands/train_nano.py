# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm train nano`: train the embedded default from random weights."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import OptionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("nano-checkpoint"),
        help="checkpoint directory to write (default: nano-checkpoint)",
    )
    options.add_overwrite(parser)
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where rendered scenes and the state to go on from are kept (default: the user's cache)",
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="change the recipe, e.g. steps=500 scenes=2000",
    )
    options.add_threads(parser, "as many as there are")
    parser.add_argument(
        "--no-compile", action="store_true", help="do without torch.compile (slower; needs no C++ compiler)"
    )
    options.add_json(parser, "checkpoint and recipe")
    parser.add_argument("--from-scratch", action="store_true", help="ignore a kept state")


def main(args: argparse.Namespace) -> int:
    """Trains; says where the checkpoint is."""
    from mobilevlm_ros.files.user_cache import user_cache
    from mobilevlm_ros.training.nano.train import Recipe, train_nano

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = dataclasses.replace(Recipe(), **_changes(args.set, dataclasses.asdict(Recipe())))
    output = train_nano(
        args.output,
        args.work or user_cache() / "nano",
        recipe,
        overwrite=args.overwrite,
        threads=args.threads,
        resume=not args.from_scratch,
        compiled=not args.no_compile,
        workers=os.cpu_count() or 1,
    )
    if args.json:
        print(json.dumps({"checkpoint": str(output), "recipe": dataclasses.asdict(recipe)}))
    else:
        print(f"{output}: trained for {recipe.steps} steps; now: mobilevlm build {output} -o BUNDLE")
    return 0


def _changes(settings: list[str], defaults: dict[str, Any]) -> dict[str, Any]:
    """Values of NAME=VALUE settings, each of its default's type. Raises OptionError."""
    changes = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in defaults:
            raise OptionError(f"--set {setting}: the recipe has no {name!r}; it has {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            changes[name] = kind(value)
        except ValueError:
            raise OptionError(f"--set {setting}: {name} needs a value of type {kind.__name__}") from None
    return changes
