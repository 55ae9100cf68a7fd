# SPDX-License-Identifier: Apache-2.0
"""Questions that nano cannot know the answer to: how sure is it of what it says?

The nouns, the phrasings and the other questions are in foreign.json; training never saw them (it has lists of
its own). Three in ten questions are about pictures that are no scene, and half of those are of nano's own
kind.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.simulation import phrases
from mobilevlm_ros.simulation.questions import FAMILIES, an, ask, plural
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene import KINDS, PAINTS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

U8 = NDArray[np.uint8]

FIRST_FOREIGN_SEED = 5_500_000  # above the exam's scenes, below those of the comparison
SURE = 0.8
"""A confidence above this is one too many on a question that cannot be answered."""

BINS = 10
GROUPS = ("nouns", "properties", "others", "pictures")
_YES_NO = ("yes", "no")


@dataclass(frozen=True)
class ForeignQuestion:
    """A question about a picture (u8 [H, W, 3] RGB) with choices, or none for free text."""

    image: U8
    question: str
    choices: tuple[str, ...]
    group: str  # one of GROUPS: why it cannot be answered


@dataclass
class ForeignReport:
    """Confidences of a model that should have none.

    `confidences` are by group and form ('free text' or 'choices'); `told` counts the free answers that say
    that they do not know.
    """

    confidences: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    surest: list[dict[str, str | float]] = field(default_factory=list)

    @property
    def all(self) -> list[float]:
        return [value for values in self.confidences.values() for value in values]

    def share_sure(self, values: Sequence[float]) -> float:
        """Share above SURE, 0 to 1."""
        return sum(value > SURE for value in values) / max(1, len(values))

    def histogram(self) -> list[int]:
        """Answers in each of BINS equal bins of confidence."""
        counts, _ = np.histogram(self.all, BINS, (0, 1))
        return [int(count) for count in counts]

    def table(self) -> str:
        """Two Markdown tables: by group and form, and the distribution."""
        lines = [f"| what is foreign | form | asked | median | above {SURE} |", "|---|---|---|---|---|"]
        for (group, form), values in sorted(self.confidences.items()):
            sure = f"{self.share_sure(values):.1%}"
            lines.append(f"| {group} | {form} | {len(values)} | {np.median(values):.2f} | {sure} |")
        every = self.all
        lines.append(
            f"| **all** | | {len(every)} | {np.median(every):.2f} | **{self.share_sure(every):.1%}** |"
        )
        edges = [f"to {(at + 1) / BINS:.1f}" for at in range(BINS)]
        lines += ["", "| confidence | " + " | ".join(edges) + " |", "|---" * (BINS + 1) + "|"]
        lines.append("| answers | " + " | ".join(map(str, self.histogram())) + " |")
        free = sum(len(v) for (_, form), v in self.confidences.items() if form == "free text")
        told = sum(self.told.values())
        lines += ["", f"Of {free} free answers, {told / max(1, free):.1%} say that they do not know."]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        every = self.all
        groups = [
            {"group": group, "form": form, "asked": len(v), "above": self.share_sure(v)}
            for (group, form), v in sorted(self.confidences.items())
        ]
        return {
            "asked": len(every),
            "above": self.share_sure(every),
            "threshold": SURE,
            "histogram": self.histogram(),
            "told": sum(self.told.values()),
            "groups": groups,
            "surest": sorted(self.surest, key=lambda one: -float(one["confidence"]))[:50],
        }


Answerer = Callable[[U8, str, tuple[str, ...]], tuple[str, float]]


def examine_foreign(
    answer: Answerer,
    count: int = 1000,
    photos: Sequence[U8] = (),
    *,
    known: Mapping[int, tuple[str, float]] = MappingProxyType({}),
    on_question: Callable[[int, str, float], object] = lambda number, text, confidence: None,
) -> ForeignReport:
    """Asks `count` questions; `answer(image, question, choices)` gives a text and its confidence.

    `known` has those of earlier sittings by the question's number from 0; they are not asked again.
    `on_question` hears of the others as they are answered.
    """
    report = ForeignReport()
    for number, asked in enumerate(foreign_questions(count, photos)):
        if number in known:
            text, confidence = known[number]
        else:
            text, confidence = answer(asked.image, asked.question, asked.choices)
            on_question(number, text, confidence)
        form = "choices" if asked.choices else "free text"
        report.confidences.setdefault((asked.group, form), []).append(confidence)
        if not asked.choices and says_unknown(text):
            report.told[asked.group] += 1
        if confidence > SURE:
            report.surest.append(
                {
                    "group": asked.group,
                    "question": asked.question,
                    "choices": " ".join(asked.choices),
                    "answer": text,
                    "confidence": round(confidence, 3),
                }
            )
    return report


def says_unknown(answer: str) -> bool:
    """Whether an answer says that one does not know: it speaks of itself, as no answer about a scene does."""
    return answer.strip().lower().startswith("i ")


def foreign_questions(count: int, photos: Sequence[U8] = ()) -> Iterator[ForeignQuestion]:
    """`count` questions, every other one with choices. Deterministic.

    `photos` are the pictures that are no scene; without them they are drawn, not from training's seeds.
    """
    words: dict[str, list[str]] = json.loads(
        files("mobilevlm_ros.evaluation.nano").joinpath("foreign.json").read_text(encoding="utf-8")
    )
    for number in range(count):
        rng = np.random.default_rng([FIRST_FOREIGN_SEED + number, 0xF0])
        scene = sample_scene(FIRST_FOREIGN_SEED + number)
        observation = observe(scene, float(rng.uniform(0, 30)), 320, 240)
        image = observation.image
        kind = number // 2 % 20  # questions come in pairs, one of each form
        if kind < 14:
            group = "nouns" if kind < 9 else "properties" if kind < 10 else "others"
        else:
            group = "pictures"
            image = photos[number // 2 % len(photos)] if len(photos) else _drawn(number)
        if group == "nouns" or kind == 14:
            question = _about_noun(words, rng)
        elif group == "properties":
            question = str(rng.choice(words["known_properties"])).format(known=rng.choice(KINDS))
        elif group == "others" or kind < 17:
            question = str(rng.choice(words["others"]))
        else:
            question = _known(observation, rng)
        choices = _YES_NO if number % 2 else ()
        yield ForeignQuestion(image, question, choices, group)


def _known(observation: Observation, rng: np.random.Generator) -> str:
    """A question of nano's own kind."""
    while True:
        exchange = ask(observation, str(rng.choice(FAMILIES)), rng)
        if exchange is not None:
            return exchange.question


def _about_noun(words: dict[str, list[str]], rng: np.random.Generator) -> str:
    """A noun that training never saw, half of the time in a phrasing that it never saw either."""
    noun = str(rng.choice(words["nouns"]))
    if rng.random() < 0.1:
        noun = f"{rng.choice(PAINTS)} {noun}"
    fields = {
        "a": an(noun),
        "noun": noun,
        "nouns": plural(noun),
        "kind": noun,
        "known": str(rng.choice(KINDS)),
    }
    if rng.random() < 0.5:
        return str(rng.choice(words["noun_questions"])).format(**fields)
    family = str(rng.choice(("existence", "existence", "color", "position", "distance", "count")))
    return str(rng.choice(list(phrases.QUESTIONS[family]))).format(**fields)


def _drawn(number: int) -> U8:
    """A picture of nothing, drawn."""
    from mobilevlm_ros.training.nano.foreign_pictures import foreign_picture

    return foreign_picture(np.random.default_rng([FIRST_FOREIGN_SEED + number, 0xF1]), 144)
