# SPDX-License-Identifier: Apache-2.0
"""What the picture decoder notices, and what hostile pictures cost.

    python benchmarks/reliability/damaged_pictures.py --pictures 100000 -o damaged_pictures.json

First, pictures of simulated scenes lose packets, get holes of zeros, are overwritten, cut, or get a wrong
bit; counted is how many of them pass for whole, and in how many of these more than 1 % of the pixels are off
by more than 16. Then as many mutated pictures as --pictures says: whatever is
not a picture or an ImageError ends the program; counted are time and memory.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import resource
import sys
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import simplejpeg
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_decoder import decode_image
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg 4:4:4": ("JPEG", {"quality": 75, "subsampling": 0}),
    "jpeg with restarts": ("JPEG", {"quality": 80, "restart_marker_rows": 2}),
    "jpeg progressive": ("JPEG", {"quality": 85, "progressive": True}),
    "jpeg optimised": ("JPEG", {"quality": 85, "optimize": True}),
    "webp": ("WEBP", {"quality": 80}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "png": ("PNG", {}),
}


def encode(name: str, rgb: np.ndarray) -> bytes:
    """A picture in one of FORMATS."""
    kind, options = FORMATS[name]
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def damage(data: bytes, rng: np.random.Generator) -> dict[str, bytes]:
    """One of each kind of damage, somewhere; a JPEG keeps its end marker, except where it is cut."""
    start = data.index(b"\xff\xda") + 14 if data[:2] == b"\xff\xd8" else 60
    keep = 2 if data[:2] == b"\xff\xd8" else 0
    at, size = int(rng.integers(start, len(data) - 260)), int(rng.integers(200, 1500))
    stop = min(at + size, len(data) - keep)
    few = min(at + int(rng.integers(1, 200)), len(data) - keep)
    noise = rng.integers(0, 255, stop - at, dtype=np.uint8).tobytes()
    bit = bytearray(data)
    bit[at] ^= 1 << int(rng.integers(8))
    return {
        "cut": data[:at],
        "packet of 200 to 1500 bytes lost": data[:at] + data[stop:],
        "1 to 199 bytes lost": data[:at] + data[few:],
        "200 to 1500 bytes zeroed": data[:at] + bytes(stop - at) + data[stop:],
        "rest zeroed": data[:at] + bytes(len(data) - at - keep) + data[len(data) - keep :],
        "200 to 1500 bytes overwritten": data[:at] + noise + data[stop:],
        "one bit wrong": bytes(bit),
    }


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """With some bytes changed, cut, doubled or moved."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(min(len(changed), 700) if rng.random() < 0.7 else len(changed)))
        way = int(rng.integers(4))
        if way == 0:
            changed[at] = int(rng.choice((0, 1, 127, 128, 255, int(rng.integers(256)))))
        elif way == 1:
            del changed[at : at + int(rng.integers(1, 40))]
        elif way == 2:
            changed[at:at] = changed[at : at + int(rng.integers(1, 200))]
        else:
            changed = changed[: max(at, 12)]
        if len(changed) < 12:
            break
    return bytes(changed)


def decoded(data: bytes) -> np.ndarray | None:
    """The picture; None where it is refused."""
    try:
        return decode_image(data)
    except ImageError:
        return None


def differs(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether more than one pixel in a hundred is off by more than 16 of 255."""
    return one.shape != other.shape or (cv2.absdiff(one, other).max(2) > 16).mean() > 0.01


def main() -> int:
    """Prints and writes the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--scenes", type=int, default=40, help="scenes to damage, each in every format (default: 40)"
    )
    parser.add_argument("--pictures", type=int, default=10_000, help="mutated pictures (default: 10000)")
    parser.add_argument("-o", "--output", type=Path, help="also write the figures as JSON")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    missed: dict[str, dict[str, str]] = {}
    for name in tqdm(FORMATS, unit="format", file=sys.stderr):
        taken: dict[str, int] = {}
        seen: dict[str, int] = {}
        total = 0
        for seed in range(args.scenes):
            rgb = observe(sample_scene(seed), 0.0, 640, 480).image
            noisy = np.clip(rgb + rng.normal(0, 12, rgb.shape), 0, 255).astype(np.uint8)
            data = encode(name, noisy if seed % 3 == 1 else rgb)
            whole = decode_image(data)
            for _ in range(10):
                total += 1
                for kind, damaged in damage(data, rng).items():
                    rgb_now = decoded(damaged) if damaged != data else None
                    taken[kind] = taken.get(kind, 0) + (rgb_now is not None)
                    seen[kind] = seen.get(kind, 0) + (rgb_now is not None and differs(rgb_now, whole))
        missed[name] = {k: f"{taken[k]} of {total}, visible {seen[k]}" for k in taken}
    small = [encode(name, observe(sample_scene(1), 0.0, 96, 72).image) for name in FORMATS]
    slowest, pictures = 0.0, 0
    for _ in tqdm(range(args.pictures), unit="picture", file=sys.stderr):
        data = mutated(small[int(rng.integers(len(small)))], rng)
        start = perf_counter()
        pictures += decoded(data) is not None
        slowest = max(slowest, perf_counter() - start)
    figures = {
        "passed for whole": missed,
        "mutated pictures": {
            "count": args.pictures,
            "taken for a picture": pictures,
            "errors other than ImageError": 0,
            "slowest, seconds": round(slowest, 3),
            "largest resident memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        },
        "versions": {
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            "simplejpeg": simplejpeg.__version__,
        },
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
