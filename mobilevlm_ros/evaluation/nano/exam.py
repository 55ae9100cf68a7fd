# SPDX-License-Identifier: Apache-2.0
"""An examination on simulated scenes that no training has seen: equally many questions of every family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.simulation.questions import FAMILIES, QAPair, agrees, ask
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FIRST_EXAM_SEED = 5_000_000  # training draws from 1 000 000 on and stays below
FIRST_COMPARISON_SEED = 6_000_000  # for comparing two builds of one model
Answerer = Callable[[NDArray[np.uint8], str], str]


def exam(
    count: int, first_seed: int = FIRST_EXAM_SEED, width: int = 640, height: int = 480
) -> Iterator[tuple[NDArray[np.uint8], QAPair, int]]:
    """Yield `count` (image u8 [H, W, 3] RGB, exchange, scene seed), families in turn. Deterministic."""
    given: Counter[str] = Counter()
    seed = first_seed
    while sum(given.values()) < count:
        rng = np.random.default_rng([seed, 0xE8A])
        observation = observe(sample_scene(seed), float(rng.uniform(0, 30)), width, height)
        # Families with few questions so far come first: some scenes give no reason for some questions.
        for family in sorted(FAMILIES, key=lambda name: given[name])[:3]:
            exchange = ask(observation, family, rng)
            if exchange is not None and sum(given.values()) < count:
                given[family] += 1
                yield observation.image, exchange, seed
        seed += 1


@dataclass
class Report:
    """Marks per family, and every wrong answer."""

    families: tuple[str, ...] = FAMILIES
    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str | int]] = field(default_factory=list)

    def mark(self, exchange: QAPair, given: str, right: bool, seed: int) -> None:
        """Counts an answer, right or wrong."""
        self.asked[exchange.family] += 1
        if right:
            self.right[exchange.family] += 1
            return
        failure = {"family": exchange.family, "question": exchange.question, "truth": exchange.truth}
        self.failures.append({"seed": seed, **failure, "answer": given})

    @property
    def accuracy(self) -> float:
        """Share of right answers over all questions, 0 to 1."""
        return sum(self.right.values()) / max(1, sum(self.asked.values()))

    def table(self) -> str:
        """The marks as a Markdown table, with a total."""
        lines = ["| family | right | asked | accuracy |", "|---|---|---|---|"]
        for family in self.families:
            if self.asked[family]:
                share = self.right[family] / self.asked[family]
                lines.append(f"| {family} | {self.right[family]} | {self.asked[family]} | {share:.1%} |")
        lines.append(
            f"| **all** | {sum(self.right.values())} | {sum(self.asked.values())} | **{self.accuracy:.1%}** |"
        )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The marks for JSON."""
        families = {
            f: {"right": self.right[f], "asked": self.asked[f]} for f in self.families if self.asked[f]
        }
        return {"accuracy": self.accuracy, "families": families, "failures": self.failures}


def evaluate(
    answer: Answerer, count: int = 2000, *, on_question: Callable[[Report], None] | None = None
) -> Report:
    """Sit the examination: `answer(image, question)` is called for each question, `on_question` after it."""
    report = Report()
    for image, exchange, seed in exam(count):
        given = answer(image, exchange.question)
        report.mark(exchange, given, agrees(exchange, given), seed)
        if on_question is not None:
            on_question(report)
    return report
