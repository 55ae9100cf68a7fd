# SPDX-License-Identifier: Apache-2.0
"""English text that a calibrated quantisation reads beside pictures: what a language model mostly knows.

`calibration_text.txt` is ours: stories, explanations, instructions and dialogues written for it, mixed with
parts of this project's documentation, docstrings and code: with prose alone, other kinds of text suffer more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt

PASSAGES, LENGTH = 12, 512
"""How many passages of the text are read, and the tokens of each."""


def read_text(
    ids: list[int],
    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    passages: int = PASSAGES,
    length: int = LENGTH,
) -> Iterator[CalibrationPrompt]:
    """Passages of `length` tokens, evenly spread over `ids`, of which each begins with the first.

    `ids` are those of `calibration_text()`, with the token that begins a text. A model of a shorter context
    wants a shorter `length`. `embed` makes f32 [T, H] of i64 [T].
    """
    begin, words = ids[:1], ids[1:]
    span = length - 1
    for start in np.linspace(0, max(0, len(words) - span), passages).astype(int):
        passage = np.array(begin + words[start : start + span], np.int64)
        yield CalibrationPrompt(embed(passage), len(passage))


def calibration_text() -> str:
    """The text, about 10 000 words."""
    return Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
