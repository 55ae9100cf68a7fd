# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm train nano`: train the embedded default from random weights, or its later stages alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.commands import options
from mobilevlm_ros.errors import OptionError

if TYPE_CHECKING:
    from mobilevlm_ros.training.nano.recipe import Recipe


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
        help="change the recipe, e.g. scenes.steps=500 honest.steps=0",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="CHECKPOINT",
        help="train only the later stages, from a checkpoint that has the first behind it",
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
    from mobilevlm_ros.training.nano.recipe import Recipe
    from mobilevlm_ros.training.nano.train import train_nano

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = _changed(Recipe(), args.set)
    output = train_nano(
        args.output,
        args.work or user_cache() / "nano",
        recipe,
        start=args.start,
        overwrite=args.overwrite,
        threads=args.threads,
        resume=not args.from_scratch,
        compiled=not args.no_compile,
        workers=os.cpu_count() or 1,
    )
    if args.json:
        print(json.dumps({"checkpoint": str(output), "recipe": dataclasses.asdict(recipe)}))
    else:
        print(f"{output}: trained; now: mobilevlm build {output} -o BUNDLE")
    return 0


def _changed(recipe: Recipe, settings: list[str]) -> Recipe:
    """The recipe with [STAGE.]NAME=VALUE settings, each of its default's type; without STAGE in every stage
    that has it. Raises OptionError."""
    from mobilevlm_ros.training.nano.recipe import STAGES

    told = {stage: dataclasses.asdict(getattr(recipe, stage)) for stage in STAGES}
    for setting in settings:
        name, _, value = setting.partition("=")
        only, _, field = name.rpartition(".")
        stages = [stage for stage in told if field in told[stage] and only in ("", stage)]
        if not stages:
            names = [f"{stage}.{field}" for stage, values in told.items() for field in values]
            raise OptionError(f"--set {setting}: the recipe has no {name!r}; it has {', '.join(names)}")
        for stage in stages:
            kind = type(told[stage][field])
            try:
                told[stage][field] = kind(value)
            except ValueError:
                raise OptionError(f"--set {setting}: {name} needs a value of type {kind.__name__}") from None
    changed = {stage: dataclasses.replace(getattr(recipe, stage), **told[stage]) for stage in STAGES}
    return dataclasses.replace(recipe, **changed)
