# SPDX-License-Identifier: Apache-2.0
"""What the frozen tower sees in each training picture, computed once and kept on disk.

Scenes, pairs of pictures and foreign pictures are drawn from their seeds by worker processes, encoded, and
forgotten; a stage that does not train the tower then costs no picture at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mobilevlm_ros.files.atomic import write_file
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.image import normalize, prepare
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import SceneObject
from mobilevlm_ros.simulation.scene_change import PicturePair, SceneChange, sample_pair
from mobilevlm_ros.simulation.scene_sampler import sample_scene
from mobilevlm_ros.training.nano.foreign_pictures import foreign_picture
from mobilevlm_ros.training.nano.scenes import camera_size, read_truth, scene_truth
from mobilevlm_ros.version import __version__

KINDS = {"scene": 1_000_000, "pair": 2_000_000, "foreign": 3_000_000}
"""Kinds of pictures, and the first seed of each; demo, tests and evaluation draw from below and above."""

_BATCH = 64
_FEATURES, _TRUTH = "features.npy", "truth.json"


@dataclass(frozen=True)
class PictureFeatures:
    """Encoded pictures of one kind.

    `features` f16 [N, n, P, D], on disk: n pictures for each of N truths, one or two.
    `truths`: an Observation, a PicturePair, or None for a foreign picture.
    """

    features: NDArray[np.float16]
    truths: list[Any]

    def __len__(self) -> int:
        return len(self.truths)


def encode_pictures(
    model: MobileVLM, cache: Path, kind: str, count: int, *, workers: int = 1
) -> PictureFeatures:
    """Draws and encodes `count` pictures of a kind, one of KINDS; or finds them in `cache`, a folder, when
    the tower is the same."""
    folder = cache / f"{kind}-{__version__}-{count}-{_fingerprint(model)}"
    if (folder / _TRUTH).exists():  # written last
        return _read(folder, kind)
    folder.mkdir(parents=True, exist_ok=True)
    vision = model.config.vision
    patches = (vision.image_size // vision.patch_size) ** 2
    shape = (count, 2 if kind == "pair" else 1, patches, vision.hidden_size)
    rows = np.lib.format.open_memmap(folder / _FEATURES, mode="w+", dtype=np.float16, shape=shape)
    truths: list[Any] = []
    pictures = _drawn([(kind, KINDS[kind] + i, vision.image_size) for i in range(count)], workers)
    bar = tqdm(total=count, desc=f"encoding: {kind}", unit="picture", disable=None)
    while drawn := list(islice(pictures, _BATCH)):
        pixels = np.concatenate([shown for shown, _ in drawn])
        with torch.no_grad():
            encoded = model.encode_features(torch.from_numpy(normalize(pixels)))
        rows[len(truths) : len(truths) + len(drawn)] = encoded.numpy().reshape(len(drawn), *shape[1:])
        truths += [truth for _, truth in drawn]
        bar.update(len(drawn))
    bar.close()
    rows.flush()
    write_file(folder / _TRUTH, json.dumps(truths).encode(), overwrite=True)
    return _read(folder, kind)


def _fingerprint(model: MobileVLM) -> str:
    """Of the tower's weights: features of another tower must not be taken for its own."""
    digest = hashlib.sha256()
    for name, value in sorted(model.vision.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:12]


def _read(folder: Path, kind: str) -> PictureFeatures:
    truths = json.loads((folder / _TRUTH).read_text())
    features = np.load(folder / _FEATURES, mmap_mode="r", allow_pickle=False)
    return PictureFeatures(features, [_READERS[kind](truth) for truth in truths])


def _pair(truth: dict[str, Any]) -> PicturePair:
    what, before, after = (truth["change"][key] for key in ("what", "before", "after"))
    change = SceneChange(what, before and SceneObject(**before), after and SceneObject(**after))
    return PicturePair(read_truth(truth["first"]), read_truth(truth["second"]), change)


_READERS: dict[str, Callable[[Any], Any]] = {"scene": read_truth, "pair": _pair, "foreign": lambda none: none}

Job = tuple[str, int, int]
Drawn = tuple[NDArray[np.uint8], Any]


def _drawn(jobs: list[Job], workers: int) -> Iterator[Drawn]:
    if workers <= 1:
        yield from map(_draw, jobs)
        return
    with get_context("spawn").Pool(workers) as pool:  # spawned: OpenCV's threads do not survive a fork
        yield from pool.imap(_draw, jobs, 32)


def _draw(job: Job) -> Drawn:
    """Pixels u8 [n, S, S, 3] of one job, and its truth."""
    kind, seed, size = job
    rng = np.random.default_rng([seed, 0xFEA7])
    if kind == "foreign":
        return foreign_picture(rng, size)[None], None
    width, height = camera_size(rng)
    if kind == "pair":
        pair = sample_pair(seed, width, height)
        pixels = np.stack([prepare(o.image, size) for o in (pair.first, pair.second)])
        truth = {
            "first": scene_truth(pair.first),
            "second": scene_truth(pair.second),
            "change": asdict(pair.change),
        }
        return pixels, truth
    observation = observe(sample_scene(seed), float(rng.uniform(0, 30)), width, height)
    return prepare(observation.image, size)[None], scene_truth(observation)
