# SPDX-License-Identifier: Apache-2.0
"""What became of a job: for people, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mobilevlm_ros.bags.selection.frames import Tally


@dataclass
class Summary:
    """Of one recording.

    Attributes:
        bag: path as given.
        output: the MCAP; '' where nothing is written.
        kind: of the records.
        frames: that were answered, those of an earlier process included.
        resumed: of those, how many an earlier process had answered.
        records: captions, answers or evaluations.
        seconds: of this process's work, the model's loading not included.
        cameras: names and topics.
        tally: what became of the pictures.
        damage: what could not be read, in sentences.
        already_done: the output was there already, made by the same job.
        error: why there is no output, where others went on; else empty.
    """

    bag: str
    output: str
    kind: str
    frames: int = 0
    resumed: int = 0
    records: int = 0
    seconds: float = 0.0
    cameras: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    damage: list[str] = field(default_factory=list)
    already_done: bool = False
    error: str = ""

    @property
    def rate(self) -> float:
        """Frames per second that this process answered."""
        return (self.frames - self.resumed) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        tally = asdict(self.tally)
        del tally["at_ns"]
        return {**asdict(self), "tally": tally, "frames_per_second": round(self.rate, 3)}

    def lines(self) -> list[str]:
        """For people."""
        if self.already_done:
            return [f"{self.bag}: {self.output} is complete already, made by the same job"]
        told, tally = [], self.tally
        what = {"caption": "captions", "answer": "answers", "monitor": "evaluations"}[self.kind]
        before = f", {self.resumed} of them before" if self.resumed else ""
        rate = f" ({self.rate:.1f} frames/s)" if self.frames > self.resumed else ""
        target = f" in {self.output}" if self.output else ""
        told.append(
            f"{self.bag}: {self.records} {what} of {self.frames} frames{before}, {self.seconds:.1f} s"
            f"{rate}{target}"
        )
        told.append(f"  {tally.pictures} pictures of {_listed(self.cameras)}; {_passed(tally)}")
        if tally.jumps:
            told.append(
                f"  time went back {_times(tally.jumps)}: what comes after is taken as another run of time"
            )
        if tally.bad:
            told.append(f"  {tally.bad} pictures could not be read and were left out:")
            told += [f"    {text}" for text in tally.bad_named]
            if tally.bad > len(tally.bad_named):
                told.append(f"    and {tally.bad - len(tally.bad_named)} more")
        told += [f"  {text}" for text in self.damage]
        return told


def _listed(cameras: dict[str, str]) -> str:
    return ", ".join(f"{topic} ({name})" if name else topic for name, topic in cameras.items())


def _passed(tally: Tally) -> str:
    parts = [f"{tally.selected} selected"]
    if tally.unchanged:
        parts.append(f"{tally.unchanged} showed nothing new")
    return ", ".join(parts)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
