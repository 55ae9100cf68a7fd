# SPDX-License-Identifier: Apache-2.0
"""Pictures rendered ahead of training: small enough to hold in memory, tied to their seeds."""

from __future__ import annotations

import json
import logging
import zipfile
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mobilevlm_ros.files.atomic import new_file
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.simulation.render import Observation, VisibleObject, observe
from mobilevlm_ros.simulation.scene import SceneObject
from mobilevlm_ros.simulation.scene_sampler import sample_scene
from mobilevlm_ros.version import __version__

logger = logging.getLogger(__name__)

U8 = NDArray[np.uint8]
_NO_IMAGE: U8 = np.zeros((0, 0, 3), np.uint8)
_SIZES = ((320, 240), (320, 240), (320, 180), (640, 480))  # (width, height); cameras differ
_COVERED = (
    0.25  # share of a patch that makes it part of a thing; patches between a tenth and this are left open
)
OPEN = 255


@dataclass
class SceneSet:
    """Rendered scenes of consecutive seeds.

    `pixels` u8 [N, S, S, 3] as the vision tower takes them; `patches` u8 [N, G, G]: 0 background, i + 1 where
    things[i] shows, OPEN where neither is clear; `observations` hold the truth (without pictures).
    """

    pixels: U8
    patches: U8
    observations: list[Observation]

    def __len__(self) -> int:
        return len(self.observations)


def render_scenes(
    first_seed: int,
    count: int,
    image_size: int,
    patch_size: int,
    *,
    cache: Path | None = None,
    workers: int = 1,
) -> SceneSet:
    """Render `count` scenes from `first_seed` on, each at a time and camera size drawn from its seed.

    With `cache` (a directory) the result is kept there, and read back by the next call with equal arguments.
    """
    stem = f"scenes-{__version__}-{first_seed}-{count}-{image_size}-{patch_size}.npz"
    if cache is not None and (kept := _read(cache / stem, count)) is not None:
        return kept
    jobs = [(seed, image_size, patch_size) for seed in range(first_seed, first_seed + count)]
    bar = partial(tqdm, total=count, desc="rendering", unit="scene", disable=None)
    if workers > 1:  # spawned, not forked: OpenCV's threads do not survive a fork
        with get_context("spawn").Pool(workers) as pool:
            done = list(bar(pool.imap(_render_one, jobs, 64)))
    else:
        done = list(bar(map(_render_one, jobs)))
    scenes = SceneSet(np.stack([d[0] for d in done]), np.stack([d[1] for d in done]), [d[2] for d in done])
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        truth = json.dumps([_truth(observation) for observation in scenes.observations]).encode()
        with new_file(cache / stem, overwrite=True) as part:
            np.savez(
                part,
                allow_pickle=False,
                pixels=scenes.pixels,
                patches=scenes.patches,
                truth=np.frombuffer(truth, np.uint8),
            )
    return scenes


def _read(file: Path, count: int) -> SceneSet | None:
    """The scenes that a file keeps; None when there is none that can be read. Nothing in it is executed."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            truth = json.loads(arrays["truth"].tobytes())
            observations = [_observation(entry) for entry in truth]
            scenes = SceneSet(arrays["pixels"], arrays["patches"], observations)
        if not len(scenes.pixels) == len(scenes.patches) == len(observations) == count:
            raise ValueError(f"it does not hold {count} scenes")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be used (%s): rendering the scenes again", file, error)
        return None
    return scenes


def _truth(observation: Observation) -> dict[str, Any]:
    return {"light": observation.light, "seen": [asdict(seen) for seen in observation.seen]}


def _observation(truth: dict[str, Any]) -> Observation:
    seen = (
        VisibleObject(SceneObject(**entry["thing"]), entry["visible"], tuple(entry["box"]))
        for entry in truth["seen"]
    )
    return Observation(_NO_IMAGE, _NO_IMAGE[..., 0], tuple(seen), truth["light"])


def _render_one(job: tuple[int, int, int]) -> tuple[U8, U8, Observation]:
    seed, image_size, patch_size = job
    rng = np.random.default_rng([seed, 0xCA3E2A])
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    observation = observe(sample_scene(seed), float(rng.uniform(0, 30)), width, height)
    pixels = prepare(observation.image, image_size)
    patches = _patch_labels(observation, image_size, patch_size)
    return pixels, patches, Observation(_NO_IMAGE, _NO_IMAGE[..., 0], observation.seen, observation.light)


def _patch_labels(observation: Observation, image_size: int, patch_size: int) -> U8:
    height, width = observation.labels.shape
    side = max(height, width)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = observation.labels
    grid = image_size // patch_size
    labels: U8 = np.zeros((grid, grid), np.uint8)
    best = np.zeros((grid, grid), np.float32)
    for index in range(len(observation.seen)):
        share = cv2.resize(
            (square == index + 1).astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA
        )
        wins = share > np.maximum(best, 0.1)
        labels[wins] = np.where(share[wins] >= _COVERED, index + 1, OPEN)
        best = np.maximum(best, share)
    return labels


def clutter(rng: np.random.Generator, image_size: int) -> U8:
    """A picture that is no scene of ours: coloured noise at many scales, patches and lines. u8 [S, S, 3].

    Taught with unrelated answers, it keeps the model from being sure about pictures it has never learnt
    (outlier exposure, Hendrycks et al. 2019).
    """
    picture = np.zeros((image_size, image_size, 3), np.float32)
    for scale in (2, 4, 9, 18, 48, 144):
        noise = rng.standard_normal((scale, scale, 3), np.float32) * rng.uniform(0, 60)
        if rng.random() < 0.5:
            noise[:] = noise.mean(-1, keepdims=True)
        picture += cv2.resize(noise, (image_size, image_size), interpolation=cv2.INTER_CUBIC)
    picture += rng.uniform(50, 200, 3).astype(np.float32)
    canvas: U8 = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 14))):
        points = rng.uniform(-0.1, 1.1, 2) * image_size + rng.normal(
            0, rng.uniform(3, 40), (int(rng.integers(3, 7)), 2)
        )
        color = tuple(int(c) for c in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            cv2.fillPoly(canvas, [points.astype(np.int32)], color, cv2.LINE_AA)
        else:
            cv2.polylines(
                canvas, [points.astype(np.int32)], False, color, int(rng.integers(1, 4)), cv2.LINE_AA
            )
    return canvas
