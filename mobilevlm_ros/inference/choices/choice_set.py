# SPDX-License-Identifier: Apache-2.0
"""Answers a request that has choices, from what the model would say first."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine
from mobilevlm_ros.inference.choices import scoring
from mobilevlm_ros.inference.choices.calibration import Calibration
from mobilevlm_ros.inference.types import Answer
from mobilevlm_ros.processing.tokenizer import Tokenizer


@dataclass(frozen=True)
class ChoiceSet:
    """Choices as the model would write them.

    Attributes:
        choices: as asked.
        sequences: token ids of each way to write one.
        owners: for each sequence, the index of its choice.
        calibration: rescales the probabilities; None leaves them as the model has them.
    """

    choices: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    calibration: Calibration | None = None

    @classmethod
    def of(
        cls, choices: Sequence[str], tokenizer: Tokenizer, calibration: Calibration | None = None
    ) -> ChoiceSet:
        """Raises nothing: the choices were checked with the request."""
        sequences, owners = scoring.candidates(choices, tokenizer)
        return cls(tuple(choices), tuple(sequences), tuple(owners), calibration)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(map(len, self.sequences), default=0)

    def answer(
        self, logits: NDArray[np.float32], cache: KVCache, language: LanguageEngine
    ) -> Generator[str, None, Answer]:
        """The most probable choice; yields '' at boundaries where choices are several tokens long.

        Args:
            logits: f32[V] after the prompt.
            cache: KV of the prompt, the same afterwards. Not looked at where all sequences are one token.
            language: the engine.
        """
        scores = yield from scoring.score(logits, cache, language, self.sequences)
        odds = scoring.probabilities(scores, self.owners, len(self.choices))
        if self.calibration is not None:
            odds = self.calibration.choices(odds)
        best = int(np.argmax(odds))
        return Answer(
            text=self.choices[best],
            confidence=odds[best],
            choices=self.choices,
            choice_probabilities=odds,
            calibrated=self.calibration is not None,
            finish_reason="choice",
        )
