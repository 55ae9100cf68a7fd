# SPDX-License-Identifier: Apache-2.0
"""Temperature scaling: probabilities of choices that mean what they say (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.errors import BundleError

CALIBRATION = "calibration.json"
"""Optional file of a bundle."""

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that make sense: beyond them every answer is certain, or nothing is known."""


@dataclass(frozen=True)
class Calibration:
    """What a bundle knows about its own confidence.

    Attributes:
        temperature: choices' log-probabilities are divided by it; above 1 makes the model less sure.
        questions: labelled questions that it was fitted on.
        labels: where they come from.
    """

    temperature: float
    questions: int = 0
    labels: str = ""

    def choices(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Probabilities of choices, rescaled; they sum to 1 and keep their order."""
        with np.errstate(divide="ignore"):  # a probability may have underflowed to 0, and stays there
            scaled = np.log(np.asarray(probabilities, dtype=np.float64)) / self.temperature
        weights = np.exp(scaled - scaled.max())
        return tuple(float(p) for p in weights / weights.sum())

    def to_json(self) -> str:
        """The text of calibration.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Calibration:
        """Reads calibration.json's text; `where` names it in errors. Raises BundleError."""
        again = "fit it again with `mobilevlm calibrate`, or remove it with `mobilevlm calibrate --remove`"
        try:
            data = json.loads(text)
            calibration = cls(float(data["temperature"]), int(data["questions"]), str(data["labels"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise BundleError(f"{where} is not a calibration ({error!r}): {again}") from error
        if not (math.isfinite(calibration.temperature) and COLDEST <= calibration.temperature <= HOTTEST):
            raise BundleError(
                f"{where}: temperature {calibration.temperature} is not from {COLDEST} to {HOTTEST}: {again}"
            )
        return calibration

    @classmethod
    def load(cls, bundle: Bundle) -> Calibration | None:
        """That of a bundle; None where it has none. Raises BundleError."""
        if CALIBRATION not in bundle.manifest.files:
            return None
        file = bundle.file(CALIBRATION)
        try:
            return cls.from_json(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from error

    def save(self, bundle: Bundle) -> Bundle:
        """The bundle with this calibration in it, written whole or not at all. Raises BundleError."""
        return bundle.add_file(CALIBRATION, self.to_json().encode(), _is_calibration)


def _is_calibration(file: Path) -> bool:
    try:
        Calibration.from_json(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError, BundleError):
        return False
    return True
