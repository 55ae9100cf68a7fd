# SPDX-License-Identifier: Apache-2.0
"""Two pictures of one place, of which the later may differ in one thing: does the model see what happened?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.evaluation.nano.exam import Report
from mobilevlm_ros.simulation.pair_questions import PAIR_FAMILIES, ask_pair, pair_agrees
from mobilevlm_ros.simulation.questions import QAPair
from mobilevlm_ros.simulation.scene_change import sample_pair

FIRST_PAIR_EXAM_SEED = 9_000_000  # training draws from 2 000 000 on and stays below

U8 = NDArray[np.uint8]
PairAnswerer = Callable[[tuple[U8, U8], str], str]


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


def evaluate_pairs(
    answer: PairAnswerer, count: int = 500, *, on_question: Callable[[Report], None] | None = None
) -> Report:
    """Sit the examination: `answer(images, question)` is called for each question, `on_question` after it."""
    report = Report(families=PAIR_FAMILIES)
    for images, exchange, seed in pair_exam(count):
        given = answer(images, exchange.question)
        report.mark(exchange, given, pair_agrees(exchange, given), seed)
        if on_question is not None:
            on_question(report)
    return report
