# SPDX-License-Identifier: Apache-2.0
"""What the model said about one frame, as the journal keeps it: raw, and each frame on its own.

States of monitors follow from them once all are there, whoever answered in which order.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mobilevlm_ros.bags.selection.frames import SelectedFrame
from mobilevlm_ros.errors import BagError
from mobilevlm_ros.inference.types import Answer


@dataclass(frozen=True)
class Said:
    """One answer.

    Attributes:
        place: of its request in the job.
        text, confidence, finish_reason, generated_tokens, calibrated, abstained: as in `Answer`.
        odds: of each choice, in their order.
    """

    place: int
    text: str
    confidence: float
    odds: tuple[float, ...]
    finish_reason: str
    generated_tokens: int
    calibrated: bool
    abstained: bool


@dataclass(frozen=True)
class Entry:
    """One frame and what was said about it. Fields as in `Record` and `SelectedFrame`."""

    number: int
    camera: str
    topic: str
    index: int
    stamp_ns: int
    bag_time_ns: int
    frame_id: str
    run: int
    said: tuple[Said, ...]

    def to_line(self) -> str:
        """One line of JSON. Numbers survive it bit for bit."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_line(line: str) -> Entry:
        """Raises BagError for a line that is no entry."""
        try:
            told = json.loads(line)
            said = tuple(Said(**{**one, "odds": tuple(one["odds"])}) for one in told.pop("said"))
            return Entry(**told, said=said)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BagError(f"a line is no entry of a journal: {error}") from error


def entry_of(selected: SelectedFrame, said: list[tuple[int, Answer]]) -> Entry:
    """The entry of a frame; `said` are the places of the requests and their answers."""
    frame = selected.frame
    return Entry(
        selected.number,
        frame.camera,
        selected.topic,
        selected.index,
        frame.stamp_ns,
        selected.bag_time_ns,
        frame.frame_id,
        frame.run,
        tuple(
            Said(
                place,
                answer.text,
                float(answer.confidence),
                tuple(float(p) for p in answer.choice_probabilities),
                answer.finish_reason,
                answer.generated_tokens,
                answer.calibrated,
                answer.abstained,
            )
            for place, answer in said
        ),
    )
