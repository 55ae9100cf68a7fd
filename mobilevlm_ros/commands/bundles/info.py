# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm info [BUNDLE]`: what a bundle is, without running it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.commands import options

if TYPE_CHECKING:
    from mobilevlm_ros.engine.bundle import Bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        metavar="BUNDLE",
        help=f"bundle directory (default: {options.SHIPPED})",
    )
    options.add_json(parser, "the manifest")


def main(args: argparse.Namespace) -> int:
    """Verifies the bundle; prints its description."""
    from mobilevlm_ros.engine.bundle import Bundle
    from mobilevlm_ros.engine.runtime import find_bundle

    bundle = Bundle.open(find_bundle(args.bundle))
    if args.json:
        print(json.dumps({"bundle": str(bundle.path), **json.loads(bundle.manifest.to_json())}))
    else:
        print("\n".join(describe(bundle)))
    return 0


def describe(bundle: Bundle) -> Iterator[str]:
    """The lines that `mobilevlm info` prints."""
    manifest = bundle.manifest
    language = manifest.model
    yield f"{manifest.name} ({bundle.path})"
    rows = {
        "model": f"{language.get('mm_projector_type', '?')}, language model {manifest.num_layers} layers x "
        f"{manifest.hidden_size}, vocabulary {manifest.vocab_size}",
        "image": f"{manifest.image_size} x {manifest.image_size} pixels ({manifest.image_aspect}), "
        f"{manifest.image_tokens} tokens",
        "context": f"{manifest.context_length} tokens, template {manifest.template}",
        "precision": _precision(manifest.precision),
        "quality": quality_line(manifest.quality) if manifest.quality else "not measured",
        "source": ", ".join(
            value if key == "name" else f"{key} {value[:16]}" for key, value in manifest.source.items()
        ),
        "built with": ", ".join(f"{name} {version}" for name, version in manifest.built_with.items()),
        "needs": ", ".join(f"{name} >= {version}" for name, version in manifest.requires.items()),
        "backends": ", ".join(_backends(bundle)),
    }
    for name, value in rows.items():
        yield f"  {name:<11}{value}"
    total = sum(entry["bytes"] for entry in manifest.files.values())
    yield f"  {'files':<11}{total / 1e6:.1f} MB, all verified"
    for name, entry in sorted(manifest.files.items()):
        yield f"    {entry['bytes'] / 1e6:10.2f} MB  {name}"


def _precision(precision: dict[str, Any]) -> str:
    bits = precision.get("decoder_bits")
    decoder = "32-bit floats" if bits == 32 else f"{bits} bits in blocks of {precision.get('block_size')}"
    how = precision.get("quantization")
    method = f" by {how['method']}" if bits != 32 and isinstance(how, dict) and "method" in how else ""
    others = precision.get("overrides")
    if isinstance(others, dict) and others:
        method += " (" + ", ".join(f"{pattern} {count} bits" for pattern, count in others.items()) + ")"
    return f"language model {decoder}{method}, encoder {precision.get('vision')}"


def quality_line(quality: dict[str, Any]) -> str:
    """What engine.quality measured, in a line."""
    try:
        return (
            f"{quality['equal']} of {quality['samples']} answers equal the checkpoint's in 32-bit floats "
            f"({quality['pictures']}); KL {quality['mean_kl']:.2g} nats per token, worst "
            f"{quality['worst_kl']:.2g}; image tokens' cosine {quality['image_cosine']:.4f}"
        )
    except (KeyError, TypeError, ValueError):  # another version's
        return json.dumps(quality)


def _backends(bundle: Bundle) -> Iterator[str]:
    """Backends whose files the bundle has."""
    from mobilevlm_ros.engine.bundle import DECODER, VISION
    from mobilevlm_ros.engine.onnxruntime.cuda import DECODER_HALF, VISION_HALF
    from mobilevlm_ros.engine.tensorrt import names

    needed = {
        "onnxruntime-cpu": (VISION, DECODER),
        "onnxruntime-cuda": (VISION_HALF, DECODER_HALF),
        "tensorrt": (names.VISION, names.DECODER),
        "tensorrt (8.5, 8.6)": (names.VISION, names.DECODER_8),
    }
    for backend, files in needed.items():
        if all(name in bundle.manifest.files for name in files):
            yield backend
