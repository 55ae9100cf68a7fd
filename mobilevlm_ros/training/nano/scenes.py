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
        truth = json.dumps([scene_truth(observation) for observation in scenes.observations]).encode()
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
            observations = [read_truth(entry) for entry in truth]
            scenes = SceneSet(arrays["pixels"], arrays["patches"], observations)
        if not len(scenes.pixels) == len(scenes.patches) == len(observations) == count:
            raise ValueError(f"it does not hold {count} scenes")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be used (%s): rendering the scenes again", file, error)
        return None
    return scenes


def scene_truth(observation: Observation) -> dict[str, Any]:
    """What a picture shows, for a JSON file; without the picture."""
    return {"light": observation.light, "seen": [asdict(seen) for seen in observation.seen]}


def read_truth(truth: dict[str, Any]) -> Observation:
    """The observation of `scene_truth`, without picture. Raises KeyError or TypeError for another's."""
    seen = (
        VisibleObject(SceneObject(**entry["thing"]), entry["visible"], tuple(entry["box"]))
        for entry in truth["seen"]
    )
    return Observation(_NO_IMAGE, _NO_IMAGE[..., 0], tuple(seen), truth["light"])


def _render_one(job: tuple[int, int, int]) -> tuple[U8, U8, Observation]:
    seed, image_size, patch_size = job
    rng = np.random.default_rng([seed, 0xCA3E2A])
    width, height = camera_size(rng)
    observation = observe(sample_scene(seed), float(rng.uniform(0, 30)), width, height)
    pixels = prepare(observation.image, image_size)
    patches = _patch_labels(observation, image_size, patch_size)
    return pixels, patches, Observation(_NO_IMAGE, _NO_IMAGE[..., 0], observation.seen, observation.light)


def camera_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of the pictures of some camera, in pixels."""
    return _SIZES[int(rng.integers(len(_SIZES)))]


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
