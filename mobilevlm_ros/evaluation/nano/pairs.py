# SPDX-License-Identifier: Apache-2.0
"""Two pictures of one place, of which the later may differ in one thing: does the model see what happened?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.benchmarks.types import Dataset, Picture
from mobilevlm_ros.evaluation.nano.benchmark import dataset, nano_benchmark
from mobilevlm_ros.simulation.pair_questions import PAIR_FAMILIES, ask_pair, pair_agrees
from mobilevlm_ros.simulation.questions import QAPair
from mobilevlm_ros.simulation.scene_change import sample_pair

FIRST_PAIR_EXAM_SEED = 9_000_000  # training draws from 2 000 000 on and stays below

U8 = NDArray[np.uint8]


def pair_exam(count: int, width: int = 640, height: int = 480) -> Iterator[tuple[tuple[U8, U8], QAPair, int]]:
    """Yield `count` ((earlier, later) images u8 [H, W, 3] RGB, exchange, seed), families in turn."""
    given: Counter[str] = Counter()
    seed = FIRST_PAIR_EXAM_SEED
    while sum(given.values()) < count:
        pair = sample_pair(seed, width, height)
        rng = np.random.default_rng([seed, 0xE8B])
        for family in sorted(PAIR_FAMILIES, key=lambda name: given[name])[:2]:
            exchange = ask_pair(pair, family, rng)
            if exchange is not None and sum(given.values()) < count:
                given[family] += 1
                yield (pair.first.image, pair.second.image), exchange, seed
        seed += 1


@dataclass(frozen=True)
class PairView:
    """Draws one picture of a pair again: the first (0) or the second (1)."""

    seed: int
    which: int
    width: int = 640
    height: int = 480

    def __call__(self) -> U8:
        """u8 [H, W, 3] RGB."""
        pair = sample_pair(self.seed, self.width, self.height)
        return (pair.first, pair.second)[self.which].image


def pair_questions(count: int = 500) -> Dataset:
    """The examination's questions for the runner."""
    return dataset(
        (exchange, [Picture(draw=PairView(seed, which)) for which in (0, 1)], seed)
        for _, exchange, seed in pair_exam(count)
    )


PAIRS = nano_benchmark("nano-pairs", "nano's pairs of pictures", PAIR_FAMILIES, pair_agrees)
