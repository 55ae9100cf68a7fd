# SPDX-License-Identifier: Apache-2.0
"""An examination on simulated scenes that no training has seen: equally many questions of every family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.benchmarks.types import Dataset, Picture
from mobilevlm_ros.evaluation.nano.benchmark import dataset, nano_benchmark
from mobilevlm_ros.simulation.questions import FAMILIES, QAPair, agrees, ask
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FIRST_EXAM_SEED = 5_000_000  # training draws from 1 000 000 on and stays below
FIRST_COMPARISON_SEED = 6_000_000  # for comparing two builds of one model


def exam(
    count: int, first_seed: int = FIRST_EXAM_SEED, width: int = 640, height: int = 480
) -> Iterator[tuple[NDArray[np.uint8], QAPair, int]]:
    """Yield `count` (image u8 [H, W, 3] RGB, exchange, scene seed), families in turn. Deterministic."""
    given: Counter[str] = Counter()
    seed = first_seed
    while sum(given.values()) < count:
        observation, rng = _look(seed, width, height)
        # Families with few questions so far come first: some scenes give no reason for some questions.
        for family in sorted(FAMILIES, key=lambda name: given[name])[:3]:
            exchange = ask(observation, family, rng)
            if exchange is not None and sum(given.values()) < count:
                given[family] += 1
                yield observation.image, exchange, seed
        seed += 1


def _look(seed: int, width: int, height: int) -> tuple[Observation, np.random.Generator]:
    """What the camera sees of a scene, and what the questions about it are drawn with."""
    rng = np.random.default_rng([seed, 0xE8A])
    return observe(sample_scene(seed), float(rng.uniform(0, 30)), width, height), rng


@dataclass(frozen=True)
class SceneView:
    """Draws the picture of an exam's scene again."""

    seed: int
    width: int = 640
    height: int = 480

    def __call__(self) -> NDArray[np.uint8]:
        """u8 [H, W, 3] RGB."""
        return _look(self.seed, self.width, self.height)[0].image


def scene_questions(count: int = 2000) -> Dataset:
    """The examination's questions for the runner."""
    return dataset((exchange, (Picture(draw=SceneView(seed)),), seed) for _, exchange, seed in exam(count))


SCENES = nano_benchmark("nano", "nano's exam", FAMILIES, agrees)
