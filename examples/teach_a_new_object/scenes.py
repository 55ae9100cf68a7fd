# SPDX-License-Identifier: Apache-2.0
"""Pictures with a shuttle (a small bus), which nano has never seen, and conversations about them in LLaVA's
format: what you would make of your robot's own pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.simulation.phrases import QUESTIONS
from mobilevlm_ros.simulation.questions import FAMILIES, PLACES, ask
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene import KINDS, PAINTS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

NEW = "shuttle"
FIRST_SEED = 7_000_000  # training; no other part of the project draws from here
FIRST_VALIDATION_SEED = 7_300_000  # to choose settings by
FIRST_HELD_OUT_SEED = 7_500_000  # what is reported
SHORT = "\nAnswer the question using a single word or phrase."
TALKS = 3
"""Conversations about each picture, all different."""


def scenes(
    first: int, count: int, with_new: bool, width: int = 320, height: int = 240
) -> Iterator[Observation]:
    """`count` rendered scenes, all with one or more of the new object, or all without."""
    seed = first
    kinds = (*KINDS, *[NEW] * 5) if with_new else KINDS
    while count:
        rng = np.random.default_rng([seed, 0x7EAC])
        observation = observe(sample_scene(seed, kinds), float(rng.uniform(0, 30)), width, height)
        seed += 1
        if any(seen.thing.kind == NEW for seen in observation.seen) == with_new:
            count -= 1
            yield observation


def about_new(observation: Observation, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """(question, answer, the fact in one word) about the new object."""
    there = [seen.thing for seen in observation.seen if seen.thing.kind == NEW]

    def phrase(family: str, **fields: str) -> str:
        return str(rng.choice(list(QUESTIONS[family]))).format(**fields)

    exists = phrase("existence", a=f"a {NEW}", noun=NEW)
    if not there:
        pairs = [(exists, f"No, there is no {NEW}.", "no")]
        about = str(rng.choice(("position", "color")))
        pairs.append((phrase(about, kind=NEW), f"There is no {NEW}.", "none"))
    else:
        pairs = [(exists, f"Yes, there is a {NEW}.", "yes")]
        if len(there) == 1:
            thing = there[0]
            pairs.append((phrase("position", kind=NEW), f"The {NEW} is {PLACES[thing.zone]}.", thing.zone))
            pairs.append((phrase("color", kind=NEW), f"The {NEW} is {thing.color}.", thing.color))
    return [
        (q + SHORT, truth.capitalize(), truth) if rng.random() < 0.5 else (q, answer, truth)
        for q, answer, truth in pairs
    ]


def talk(observation: Observation, known: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(question, answer) turns about one picture: what is new, and `known` questions that nano answers
    already, so that it forgets nothing. What gives all other answers away comes last."""
    turns = [(question, answer) for question, answer, _ in about_new(observation, rng)]
    last = []
    for family in rng.choice(FAMILIES, known, replace=False):
        asked = ask(observation, str(family), rng)
        if asked is not None:
            pair = (asked.question, asked.answer)
            (last if family in ("identity", "description") else turns).append(pair)
    return [turns[at] for at in rng.permutation(len(turns))] + last


def conversations(
    observations: Sequence[Observation], known: int, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """Samples of LLaVA's format: TALKS conversations about each picture. One picture costs the same whether
    it is asked one question or eight, so each conversation has several turns."""
    for number, observation in enumerate(observations):
        for index in range(TALKS):
            turns = []
            for at, (question, answer) in enumerate(talk(observation, known, rng)):
                text = question if at else f"<image>\n{question}"
                turns += [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
            yield {"id": f"{number}-{index}", "image": f"{number:05}.png", "conversations": turns}


def write(folder: Path, pictures: int, others: int, known: int) -> Path:
    """Writes `pictures` with the new object and `others` without, and conversations.json."""
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(7)
    shown = list(scenes(FIRST_SEED, pictures, True)) + list(scenes(FIRST_SEED, others, False))
    for number, observation in enumerate(shown):
        cv2.imwrite(str(folder / "pictures" / f"{number:05}.png"), observation.image[..., ::-1])
    path = folder / "conversations.json"
    path.write_text(json.dumps(list(conversations(shown, known, rng)), indent=1))
    return path


def examine(vlm: MobileVLM, count: int) -> dict[str, float]:
    """Shares of right answers about the new object in `count` scenes that training never saw, half
    of them with one."""
    marks: dict[str, list[bool]] = {"existence": [], "position": [], "color": []}
    rng = np.random.default_rng(11)
    for with_new in (True, False):
        for observation in scenes(FIRST_HELD_OUT_SEED, count // 2, with_new, 640, 480):
            for question, _, truth in about_new(observation, rng):
                kind = "existence" if truth in ("yes", "no") else "color" if truth in PAINTS else "position"
                marks[kind].append(states(vlm.ask(observation.image, question).text, truth))
    every = [mark for kind in marks.values() for mark in kind]
    return {kind: round(sum(m) / max(1, len(m)), 3) for kind, m in {**marks, "all": every}.items()}


def states(answer: str, truth: str) -> bool:
    """Whether an answer states the fact, and states it of nothing else: "The person is red." is not right
    about a red shuttle."""
    words = answer.lower().replace(".", " ").replace(",", " ").split()
    if any(word in words for kind in KINDS for word in kind.split()):
        return False
    return truth in words or (truth == "none" and words[:3] == ["there", "is", "no"])
