# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm monitor-bag BAG... --monitors FILE`: the node's monitors over a recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.bags import bag_options

ANY_ORDER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help=bag_options.BAG_HELP)
    parser.add_argument(
        "--monitors", type=Path, required=True, metavar="YAML", help="as the node takes it: monitors.yaml"
    )
    bag_options.add_output(parser, required=False)
    bag_options.add_bag_plot(parser)
    bag_options.add_selection(parser, "seconds between evaluations (default: each monitor's rate)")
    options.add_bundle(parser)
    options.add_runtime(parser)
    bag_options.add_ray(parser)
    parser.set_defaults(kind="monitor")


def main(args: argparse.Namespace) -> int:
    """Evaluates; prints each change of a state, or with -o a summary."""
    bag_options.check_installed()
    from mobilevlm_ros.bags.job.job import monitors_job
    from mobilevlm_ros.errors import ConfigurationError
    from mobilevlm_ros.inference.monitoring.monitors import load_monitors

    monitors = load_monitors(args.monitors)
    if not monitors:
        raise ConfigurationError(f"monitors file {args.monitors} has no monitor: add one")
    chosen, model = bag_options.selection_of(args), bag_options.model_of(args)
    bag_options.check_places(args, args.bags)
    runtime = model.load()
    make = monitors_job(monitors, chosen, model, runtime.bundle.manifest.model_id)
    return bag_options.run_jobs(args, args.bags, make, runtime)
