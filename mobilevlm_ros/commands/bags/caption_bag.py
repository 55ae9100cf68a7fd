# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm caption-bag BAG... -o OUT`: a sentence about each frame of a recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.bags import bag_options

ANY_ORDER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help=bag_options.BAG_HELP)
    bag_options.add_output(parser, required=True)
    bag_options.add_selection(parser, "seconds between captions of a camera (default: every frame)")
    parser.add_argument("--prompt", metavar="TEXT", help="what is asked (default: Describe the scene.)")
    parser.add_argument("--max-tokens", type=int, default=64, help="longest caption (default: 64)")
    parser.add_argument("--system-prompt", default="", metavar="TEXT", help="text before the question")
    options.add_bundle(parser)
    options.add_runtime(parser)
    bag_options.add_ray(parser)
    parser.set_defaults(kind="caption")


def main(args: argparse.Namespace) -> int:
    """Captions; prints a summary."""
    bag_options.check_installed()
    from mobilevlm_ros.bags.job.job import questions_job
    from mobilevlm_ros.inference.assistant import CAPTION_PROMPT
    from mobilevlm_ros.inference.types import Request, SamplingParams

    prompt = CAPTION_PROMPT if args.prompt is None else args.prompt
    request = Request(
        prompt, system_prompt=args.system_prompt, sampling=SamplingParams(max_tokens=args.max_tokens)
    )
    chosen, model = bag_options.selection_of(args), bag_options.model_of(args)
    bag_options.check_places(args, args.bags)
    runtime = model.load()
    make = questions_job("caption", [request], chosen, model, runtime.bundle.manifest.model_id)
    return bag_options.run_jobs(args, args.bags, make, runtime)
