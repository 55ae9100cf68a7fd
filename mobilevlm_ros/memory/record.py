# SPDX-License-Identifier: Apache-2.0
"""What goes into a memory, what is looked for, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

CAPTION, MONITOR, ANSWER = "caption", "monitor", "answer"
KINDS = (CAPTION, MONITOR, ANSWER)


@dataclass(frozen=True)
class Position:
    """Where the robot was: metres in a frame, e.g. 'odom' or 'map' (REP 105)."""

    frame: str
    x: float
    y: float
    z: float = 0.0


@dataclass(frozen=True, eq=False)
class Record:
    """One thing that is remembered.

    Attributes:
        stamp_ns, frame_id: of the source image, unchanged.
        camera: name of the camera; may be empty.
        kind: 'caption', 'monitor' (raised or cleared) or 'answer'.
        text: the caption; 'NAME: raised' or 'NAME: clear'; the answer alone.
        question: of an answer or a monitor; else empty.
        confidence: of the model in the text, 0 to 1.
        model_id: what said it.
        topic, bag: where the image came from; may be empty.
        position: where the robot was; None where that is not known.
        thumbnail: a small JPEG; None without one.
    """

    stamp_ns: int
    camera: str
    kind: str
    text: str
    question: str = ""
    confidence: float = 0.0
    model_id: str = ""
    frame_id: str = ""
    topic: str = ""
    bag: str = ""
    position: Position | None = None
    thumbnail: bytes | None = None

    @property
    def shown(self) -> str:
        """The text as it is shown: that of an answer has its question before it."""
        return f"{self.question} {self.text}".strip() if self.kind == ANSWER else self.text

    @property
    def searched(self) -> str:
        """The text as it is searched: that of a monitor has its question behind it."""
        return f"{self.text}. {self.question}" if self.kind == MONITOR and self.question else self.shown


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        text: a description or a question in plain words; empty: the newest records.
        camera: only this one; empty: all.
        kind: only this one of KINDS; empty: all.
        start_ns, end_ns: only stamps from and to these, both included; 0: no bound.
        x, y, radius: only within so many metres of this place; radius 0: anywhere.
        limit: most matches.
        thumbnails: return them too.
    """

    text: str = ""
    camera: str = ""
    kind: str = ""
    start_ns: int = 0
    end_ns: int = 0
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0
    limit: int = 5
    thumbnails: bool = False


@dataclass(frozen=True, eq=False)
class Match:
    """A record that was found, and how well it matches, 0 to 1 (0 without a text to look for)."""

    record: Record
    score: float
