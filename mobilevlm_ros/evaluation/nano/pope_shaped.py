# SPDX-License-Identifier: Apache-2.0
"""POPE's files about simulated scenes: what is there and what is not is known, and nano can answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mobilevlm_ros.evaluation.benchmarks.pope import CATEGORIES, QUESTIONS
from mobilevlm_ros.evaluation.benchmarks.types import SHORT_ANSWER
from mobilevlm_ros.files.atomic_directory import DirectoryKind, new_directory
from mobilevlm_ros.simulation.questions import ask
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FIRST_POPE_SEED = 8_000_000
"""Of the scenes; those of training, examination, comparison and calibration lie below."""

PER_PICTURE = 6  # questions of each set, as in POPE
_FOLDER = DirectoryKind("folder of benchmark files", lambda path: None)  # never replaced
_WORDING = ("Is there {a} in the image?",)


def write_pope_shaped(
    folder: Path, pictures: int = 500, on_picture: Callable[[], object] = lambda: None
) -> int:
    """A folder in POPE's layout with 18 questions about each picture; returns how many. Deterministic.

    The real POPE has 500 pictures and 8910 questions. The folder appears only when it is complete. Raises
    OutputError for one that holds something.
    """
    with new_directory(folder, _FOLDER) as work:
        return _fill(work, pictures, on_picture)


def _fill(folder: Path, pictures: int, on_picture: Callable[[], object]) -> int:
    (folder / "val2014").mkdir(parents=True)
    (folder / "coco").mkdir()
    asked: dict[str, list[tuple[str, str, str]]] = {category: [] for category in CATEGORIES}
    for number in range(pictures):
        seed = FIRST_POPE_SEED + number
        observation = observe(sample_scene(seed), 0.0, 320, 240)
        image = f"scene_{number:06}.png"
        cv2.imwrite(str(folder / "val2014" / image), observation.image[..., ::-1])
        rng = np.random.default_rng([seed, 0x909E])
        for category in CATEGORIES:
            for _ in range(PER_PICTURE):
                exchange = ask(observation, "existence", rng, phrasings=_WORDING)
                assert exchange is not None  # there is always something to ask about existence
                question = exchange.question.split("?")[0] + "?"  # without the simulation's own suffixes
                asked[category].append((image, question, exchange.truth.lower()))
        on_picture()
    lines, at = [], 0
    for category, rows in asked.items():
        labels = [
            {"question_id": i, "image": image, "text": text, "label": label}
            for i, (image, text, label) in enumerate(rows, 1)
        ]
        _write(folder / "coco" / f"coco_pope_{category}.json", labels)
        for image, text, _ in rows:
            at += 1
            lines.append(
                {"question_id": at, "image": image, "text": text + SHORT_ANSWER, "category": category}
            )
    _write(folder / QUESTIONS, lines)
    return at


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
