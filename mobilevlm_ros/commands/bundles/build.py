# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm build CHECKPOINT -o BUNDLE`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options

if TYPE_CHECKING:
    from mobilevlm_ros.export.quantization.calibration_set import CalibrationSet
    from mobilevlm_ros.export.quantization.precision import DecoderPrecision


LEAST_EQUAL = 0.9
"""Share of answers that quantisation should leave as they were; below, `build` warns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="directory of a MobileVLM checkpoint, its hub id (e.g. mtgv/MobileVLM_V2-1.7B), or the language "
        "model's .gguf file from llama.cpp",
    )
    parser.add_argument(
        "--mmproj",
        type=Path,
        metavar="FILE",
        help="the image encoder's .gguf file (default: the only one beside the language model's)",
    )
    options.add_output(parser, "BUNDLE", "directory to make", "--force")
    options.add_revision(parser)
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="CHECKPOINT holds LoRA adapters: merge them into this checkpoint or hub id first (as `mobilevlm "
        "merge` does, which has more options), in a directory beside BUNDLE that is gone afterwards",
    )
    parser.add_argument("--name", help="model id that answers report (default: the checkpoint's)")
    parser.add_argument(
        "--bits",
        type=int,
        choices=(4, 8, 32),
        default=4,
        help="of the language model's weights; 32 does not quantise (default: 4)",
    )
    parser.add_argument(
        "--preset",
        choices=("accurate", "balanced", "fast"),
        help="blocks of 32, 64 or 128 weights that share a scale, with the output layer in 8 bits "
        "(default: accurate)",
    )
    parser.add_argument(
        "--block-size",
        type=int,
        choices=(16, 32, 64, 128, 256),
        help="weights that share a scale (default: the preset's)",
    )
    parser.add_argument(
        "--matrix-bits",
        action="append",
        default=[],
        type=_matrix_bits,
        metavar="PATTERN=BITS",
        help="other bits for matrices whose name matches, e.g. lm_head=4 or '*.down_proj=8', '*.o_proj', "
        "'*.qkv_proj', '*.gate_up_proj' (q, k and v are one matrix, gate and up too); may be repeated",
    )
    parser.add_argument(
        "--quantize",
        choices=("gptq", "rtn"),
        help="gptq fits the rounding to what the model reads: English text, questions about pictures; rtn "
        "rounds to nearest, which takes a tenth of the time and hurts answers more (default: gptq, or rtn "
        "where no matrix has 4 bits)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="pictures for gptq, best from the robot's own cameras (default: simulated scenes)",
    )
    parser.add_argument(
        "--samples", type=int, default=16, help="conversations about them that gptq reads (default: 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which samples gptq draws (default: 0)")
    parser.add_argument(
        "--accuracy-level",
        type=int,
        choices=(0, 4),
        default=4,
        help="4 computes with 8-bit activations (fast), 0 with 32-bit floats (default: 4)",
    )
    parser.add_argument(
        "--vision",
        choices=("auto", "fp16", "fp32", "int8", "int8-block"),
        default="auto",
        help="how the encoder's weights are stored. int8 and int8-block also compute in 8 bits, with a scale "
        "per tensor (fastest) or per 32 activations (most exact), and do not run on GPUs; auto takes the "
        "first of int8, int8-block and fp16 that keeps the encoder's output, and fp16 for TensorRT "
        "(default: auto)",
    )
    parser.add_argument(
        "--quality",
        type=int,
        default=8,
        metavar="N",
        help="questions to compare with the checkpoint in 32-bit floats, for the bundle's description; 0 "
        "skips it (default: 8)",
    )
    parser.add_argument(
        "--prefill",
        choices=("decoder", "int8"),
        default="decoder",
        help="what reads prompts: the decoder itself, or its weights once more in 8 bits, which is about "
        "twice as fast on a CPU and takes 1.2 GB more of disk and memory for a 1.7B model (default: decoder)",
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=("cuda", "tensorrt", "tensorrt8"),
        default=["cuda"],
        help="GPU engines that the bundle is also for: cuda (ONNX Runtime; some kilobytes), tensorrt (10 and "
        "newer; a second 4-bit decoder), tensorrt8 (8.5 and 8.6; a 16-bit decoder) (default: cuda)",
    )
    options.add_quiet(parser)
    options.add_json(parser, "what was built")


def _matrix_bits(text: str) -> tuple[str, int]:
    pattern, _, bits = text.rpartition("=")
    if not pattern or bits not in ("4", "8", "32"):
        raise argparse.ArgumentTypeError(f"{text!r} is not PATTERN=BITS with 4, 8 or 32 bits")
    return pattern, int(bits)


def _precision(args: argparse.Namespace) -> DecoderPrecision:
    """The preset with what is said beside it; 8 or 32 bits need no preset."""
    from mobilevlm_ros.export.presets import DEFAULT, PRESETS
    from mobilevlm_ros.export.quantization.precision import DecoderPrecision

    changes = {"bits": args.bits, "overrides": dict(args.matrix_bits), "accuracy_level": args.accuracy_level}
    if args.block_size is not None:
        changes["block_size"] = args.block_size
    if args.bits != 4:
        return DecoderPrecision(**changes)
    return PRESETS[args.preset or DEFAULT].precision(**changes)


def _calibration(args: argparse.Namespace, precision: DecoderPrecision) -> CalibrationSet | None:
    """What GPTQ reads."""
    from mobilevlm_ros.errors import OptionError
    from mobilevlm_ros.export.quantization.calibration_set import CalibrationSet

    if args.quantize == "rtn" and args.calibration is not None and args.quality < 1:
        raise OptionError("--calibration is of no use to rtn without --quality; leave --quantize out")
    wanted = (
        args.quantize == "gptq" or args.calibration is not None
    )  # else only where it pays: 8 bits are exact
    if args.quantize == "rtn" or not (wanted or precision.least_bits == 4):
        return None
    if precision.least_bits == 32:
        raise OptionError("gptq has nothing to round in 32 bits; leave it out, or choose fewer bits")
    try:
        return CalibrationSet(args.calibration, args.samples, args.seed)
    except ValueError as error:
        raise OptionError(f"calibration {error}") from error


def _quality(args: argparse.Namespace) -> CalibrationSet | None:
    """What the bundle is compared on: other conversations than those of `_calibration`."""
    from mobilevlm_ros.errors import OptionError
    from mobilevlm_ros.export.quantization.calibration_set import CalibrationSet

    if args.quality == 0:
        return None
    try:
        return CalibrationSet(args.calibration, args.quality, args.seed + 1)
    except ValueError as error:
        raise OptionError(f"quality: {error}") from error


def _build_merged(args: argparse.Namespace) -> int:
    """Builds from adapters and their base, which are a checkpoint for as long as that takes."""
    from mobilevlm_ros.export.bundle_directory import BUNDLE
    from mobilevlm_ros.files.atomic_directory import check_directory
    from mobilevlm_ros.files.workplace import workplace
    from mobilevlm_ros.training.run.results import merge

    check_directory(args.output, BUNDLE, overwrite=args.overwrite)
    with workplace(args.output.with_name(f"{args.output.name}-merged"), parents=True) as work:
        print(f"merging {args.checkpoint} into {args.base} ...", file=sys.stderr)
        merged = merge(args.checkpoint, work / args.checkpoint.name, base=args.base)
        return main(argparse.Namespace(**{**vars(args), "checkpoint": merged, "base": None}))


def quality_warning(quality: dict[str, Any], args: argparse.Namespace) -> str:
    """What to try where fewer than `LEAST_EQUAL` of the answers are the checkpoint's; else empty.

    Args:
        quality: as `BundleQuality.to_json` gives it; empty where nothing was measured.
        args: what the bundle was built with.
    """
    from mobilevlm_ros.export.quality.comparison import LEAST_COSINE

    if not quality or quality["equal"] >= LEAST_EQUAL * quality["samples"]:
        return ""
    tries = []
    if quality["image_cosine"] < LEAST_COSINE:
        tries.append("--vision fp16")
    if args.bits < 8:
        if args.quantize != "gptq":
            tries.append("--quantize gptq --calibration PICTURES")
        tries += ["--matrix-bits '*.down_proj=8'", "--bits 8"]
    if args.accuracy_level == 4:
        tries.append("--accuracy-level 0")
    if quality["samples"] < 64:
        tries.append("--quality 64, which tells more")
    found = f"{quality['equal']} of {quality['samples']} answers are the checkpoint's in 32-bit floats"
    return f"{found}, fewer than {LEAST_EQUAL:.0%}" + (f": try {'; or '.join(tries)}" if tries else "")


def main(args: argparse.Namespace) -> int:
    """Builds; prints where, how large and how long."""
    from tqdm import tqdm

    from mobilevlm_ros.commands.bundles.info import quality_line
    from mobilevlm_ros.export.builder import build_bundle
    from mobilevlm_ros.export.options import BuildOptions

    started = perf_counter()
    if args.base is not None:
        return _build_merged(args)
    precision = _precision(args)
    # The delay leaves the terminal to huggingface_hub's bars until there are steps of ours.
    with tqdm(disable=args.quiet or None, unit="step", leave=False, file=sys.stderr, delay=0.01) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        bundle = build_bundle(
            args.checkpoint,
            args.output,
            BuildOptions(
                precision=precision,
                vision_store=args.vision,
                name=args.name,
                revision=args.revision,
                mmproj=args.mmproj,
                calibration=_calibration(args, precision),
                quality=_quality(args),
                fast_prefill=args.prefill == "int8",
                backends=args.backends,
            ),
            force=args.overwrite,
            progress=progress,
        )
    seconds = perf_counter() - started
    warning = quality_warning(bundle.manifest.quality or {}, args)
    size = sum(entry["bytes"] for entry in bundle.manifest.files.values())
    if args.json:
        result = {
            "bundle": str(bundle.path),
            "name": bundle.manifest.name,
            "bytes": size,
            "seconds": round(seconds, 3),
            "precision": bundle.manifest.precision,
            "quality": bundle.manifest.quality,
            "files": bundle.manifest.files,
        }
        print(json.dumps(result))
    else:
        print(f"{bundle.path}: {bundle.manifest.name}, {size / 1e6:.1f} MB, built in {seconds:.1f} s")
        if bundle.manifest.quality:
            print(quality_line(bundle.manifest.quality))
    if warning:  # beside the figures, but never in the JSON
        print(f"mobilevlm: warning: {warning}", file=sys.stderr if args.json else sys.stdout)
    return 0
