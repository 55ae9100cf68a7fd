# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm train lora|instruct|align|sft|pretrain-llm`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobilevlm_ros.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--recipe", type=Path, metavar="FILE", help="settings in YAML; the paper's are in recipes/"
    )
    parser.add_argument("--model", help="checkpoint directory or hub id to start from (model.path)")
    parser.add_argument("--data", help="conversations, or folders of token shards (data.path)")
    parser.add_argument("--images", help="folder of the conversations' pictures (data.images)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting, e.g. optimizer.learning_rate=1e-4; may be repeated; --explain lists them",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", help="run folder to make")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN where it stopped")
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        default=None,
        help="write TensorBoard events into RUN/tensorboard too (run.tensorboard)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and print sizes, steps and memory; train nothing",
    )
    parser.add_argument(
        "--explain", action="store_true", help="print every setting with its default and meaning"
    )
    options.add_threads(parser, "as many as there are")
    options.add_quiet(parser)


def main(args: argparse.Namespace) -> int:
    """Trains; says where the result is and what to do with it."""
    from mobilevlm_ros.errors import RecipeError
    from mobilevlm_ros.training.recipe import explain, make_recipe, parse_settings, read_yaml
    from mobilevlm_ros.training.run.run import check_output, resumed_recipe, train
    from mobilevlm_ros.training.stages import STAGES

    if args.explain:
        for name, default, meaning in explain():
            print(f"{name:34} {default:>10}  {meaning}")
        return 0
    if args.output is None and not args.dry_run:
        raise RecipeError("name the run folder to make: -o runs/NAME")
    given = {
        "model": {"path": args.model},
        "data": {"path": args.data, "images": args.images},
        "run": {"tensorboard": args.tensorboard},
    }
    options = {part: {k: v for k, v in values.items() if v is not None} for part, values in given.items()}
    layers = [STAGES[args.what]]
    if args.resume:
        layers = [resumed_recipe(args.output)]
    elif args.recipe:
        layers.append(read_yaml(args.recipe))
    recipe = make_recipe(*layers, options, parse_settings(args.set), source=str(args.recipe or "recipe"))
    if recipe.stage != args.what:
        raise RecipeError(
            f"{args.recipe or args.output} is a recipe of the stage {recipe.stage}, not {args.what}"
        )
    if not args.dry_run:
        check_output(args.output, args.resume)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    bar = not args.quiet and sys.stderr.isatty()
    return train(recipe, args.output, resume=args.resume, dry_run=args.dry_run, bar=bar)
