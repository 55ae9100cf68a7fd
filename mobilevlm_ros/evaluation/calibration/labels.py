# SPDX-License-Identifier: Apache-2.0
"""Labelled questions with choices: from a file, or about simulated scenes that no training has seen."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError, OptionError
from mobilevlm_ros.evaluation.nano.exam import exam
from mobilevlm_ros.files.kinds import TEXT, TEXTS
from mobilevlm_ros.files.small_file import regular
from mobilevlm_ros.processing.image_file import read_picture
from mobilevlm_ros.simulation.questions import PLACES
from mobilevlm_ros.simulation.scene import LIGHT_STATES, PAINTS

_LARGEST = 256 << 20  # bytes of the file

FIRST_CALIBRATION_SEED = 7_000_000
"""Of the scenes; those of training, examination and comparison lie below."""

SIMULATED = {
    "nano": "simulated scenes as nano was trained on",
    "nano-hard": "the same, darkened, blurred and noisy at random",
}

CHOICES: dict[str, tuple[str, ...]] = {
    "existence": ("yes", "no"),
    "path": ("yes", "no"),
    "color": (*PAINTS, "none"),
    "position": (*PLACES, "none"),
    "distance": ("near", "far", "none"),
    "signal": (*LIGHT_STATES, "none"),
    "count": ("0", "1", "2", "3"),
    "daylight": ("day", "dusk"),
}
"""Families of simulated questions whose answers can be listed."""


@dataclass(frozen=True, eq=False)
class Label:
    """A question about a picture (u8 [H, W, 3] RGB) with its true answer, one of the choices."""

    image: NDArray[np.uint8]
    question: str
    choices: tuple[str, ...]
    answer: str


def simulated(name: str, count: int, first_seed: int = FIRST_CALIBRATION_SEED) -> Iterator[Label]:
    """`count` labels of SIMULATED[name]; deterministic."""
    given = 0
    for image, exchange, seed in exam(10 * count, first_seed):
        choices = CHOICES.get(exchange.family, ())
        if exchange.truth in choices:
            picture = _degrade(image, seed + given) if name == "nano-hard" else image
            yield Label(picture, exchange.question, choices, exchange.truth)
            given += 1
            if given == count:
                return


def from_file(path: Path) -> Iterator[Label]:
    """Labels of a .jsonl or .csv file with the fields image, question, choices, answer.

    Image paths are relative to the file. In CSV the choices are separated by '|'. Raises OptionError, which
    names the line, and ImageError.
    """
    try:
        with regular(path, _LARGEST).open(
            encoding="utf-8-sig", newline=""
        ) as stream:  # spreadsheets put a mark in front
            is_csv = path.suffix.lower() == ".csv"
            rows: Iterator[Any] = iter(csv.DictReader(stream)) if is_csv else iter(stream)
            for number, row in enumerate(rows, 1):
                if isinstance(row, Mapping) or row.strip():
                    yield _label(row, f"{path}, {'row' if is_csv else 'line'} {number}", path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError(f"labels {path} cannot be read: {error}") from error


def _label(row: Any, where: str, path: Path) -> Label:
    try:
        fields = row if isinstance(row, Mapping) else json.loads(row)
        image, question, choices, answer = (fields[key] for key in ("image", "question", "choices", "answer"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise OptionError(
            f"{where}: no object with image, question, choices and answer ({error}): correct it"
        ) from error
    if TEXT.fits(choices):
        choices = choices.split("|")
    if not TEXTS.fits(choices) or not TEXTS.fits([image, question, answer]):
        raise OptionError(f"{where}: image, question, answer and each choice must be text: correct it")
    choices = tuple(choice.strip() for choice in choices)
    if answer.strip() not in choices:
        raise OptionError(f"{where}: the answer {answer!r} is none of the choices {choices}: correct it")
    return Label(_picture(path.parent / image, where), question, choices, answer.strip())


def _picture(file: Path, where: str) -> NDArray[np.uint8]:
    try:
        return read_picture(file)
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error


def _degrade(image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Less light, less focus and more noise than nano ever saw, in random measure."""
    rng = np.random.default_rng([seed, 0xBAD])
    blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 0.014 * image.shape[1])))
    dim = blurred * rng.uniform(0.25, 1.0) + rng.normal(0, rng.uniform(4, 40), image.shape)
    return np.clip(dim, 0, 255).astype(np.uint8)
