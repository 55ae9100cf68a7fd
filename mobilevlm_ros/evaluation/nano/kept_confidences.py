# SPDX-License-Identifier: Apache-2.0
"""Confidences on disk as they come: foreign questions of a killed examination are not asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.runner.journal import Journal


class KeptConfidences:
    """What one model said to the foreign questions, and how sure it was.

    Args:
        folder: of the model's run; made where it is missing.
        identity: of the model, see model_identity.
        photos: u8 [H, W, 3] that stand for pictures that are no scene; other ones are another examination.

    Use as a context manager, which holds the folder's lock. Raises EvaluationError when the folder holds
    another run's, or another process writes.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], photos: Sequence[NDArray[np.uint8]]
    ) -> None:
        digest = hashlib.sha256()
        for photo in photos:
            digest.update(repr(photo.shape).encode() + photo.tobytes())
        self._journal = Journal(folder, {**identity, "photos_sha256": digest.hexdigest()})
        self.known: dict[int, tuple[str, float]] = {}
        """Text and confidence of earlier sittings, by the question's number from 0."""

    def __enter__(self) -> KeptConfidences:
        self._journal.__enter__()
        for number, line in enumerate(self._journal.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                kept = json.loads(line)
                answer = str(kept["text"]), float(kept["confidence"])
                self.known.setdefault(int(kept["number"]), answer)
            except (ValueError, TypeError, KeyError) as error:
                self._journal.__exit__(None, None, None)
                raise EvaluationError(
                    f"{self._journal.path}, line {number} is no answer of this examination: use another "
                    "--out, or delete that file"
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def add(self, number: int, text: str, confidence: float) -> None:
        """Keeps one more; after it returns, a killed process has not lost it."""
        line = {"number": number, "text": text, "confidence": confidence}
        self._journal.add([json.dumps(line) + "\n"])
