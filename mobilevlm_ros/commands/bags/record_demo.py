# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm record-demo -o demo.mcap`: a small recording of simulated scenes, to try things on."""

from __future__ import annotations

import argparse
from pathlib import Path

from mobilevlm_ros.commands import options
from mobilevlm_ros.commands.bags import bag_options
from mobilevlm_ros.errors import OptionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_output(parser, "MCAP", "the recording to make")
    parser.add_argument("--seconds", type=float, default=20.0, help="length (default: 20)")
    parser.add_argument("--rate", type=float, default=5.0, help="images per second and camera (default: 5)")
    parser.add_argument(
        "--camera", action="append", default=[], metavar="NAME", help="repeatable (default: front)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first scene (default: 0)")
    parser.add_argument(
        "--scene-seconds", type=float, default=4.0, help="until the next scene comes; 0 = never (default: 4)"
    )
    parser.add_argument("--raw", action="store_true", help="raw images (rgb8); default: JPEG")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="pixels (default: 640x480)")
    parser.add_argument("--jpeg-quality", type=int, default=90, help="1 to 100 (default: 90)")


def main(args: argparse.Namespace) -> int:
    """Records; says what to do with it."""
    bag_options.check_installed()
    from mobilevlm_ros.bags.demo_recording import DemoOptions, record_demo

    output: Path = args.output
    if output.suffix != ".mcap":
        raise OptionError(f"-o is {output}: name a file that ends in .mcap")
    try:
        width, height = (int(side) for side in args.size.lower().split("x"))
    except ValueError as error:
        raise OptionError(f"--size is {args.size!r}: give two whole numbers, as in 640x480") from error
    count = record_demo(
        output,
        DemoOptions(
            args.seconds,
            args.rate,
            tuple(args.camera) or ("front",),
            args.seed,
            args.scene_seconds,
            args.raw,
            width,
            height,
            args.jpeg_quality,
        ),
        overwrite=args.overwrite,
    )
    print(f"{output}: {count} images in {args.seconds:g} s, {output.stat().st_size / 1e6:.1f} MB")
    print(f'try: mobilevlm ask-bag {output} "Is there a person?" --choices yes no')
    return 0
