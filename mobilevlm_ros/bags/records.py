# SPDX-License-Identifier: Apache-2.0
"""What the model said about a picture of a recording, as one line of a JSON Lines file.

`caption-bag`, `ask-bag` and `monitor-bag` write these files beside their MCAP; `index` and `bag-to-dataset`
read them. Lines are in the order of the recording. Each is a JSON object with the fields of `Record`; what
is empty or unknown is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mobilevlm_ros.errors import BagError
from mobilevlm_ros.files.kinds import NUMBER_OBJECT, OBJECT, kind_of

VERSION = 1
"""Of the format, in each line. A file of another one is refused."""

KINDS = ("caption", "answer", "monitor")

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Record:
    """One caption, answer or evaluation of a monitor.

    Attributes:
        kind: 'caption', 'answer' or 'monitor'.
        stamp_ns: of the picture's header, nanoseconds, unchanged; 0 where the camera filled none.
        bag_time_ns: when the picture was recorded, nanoseconds in the clock of the recording.
        camera: name; see `mobilevlm_ros.bags.job.cameras`.
        text: the caption; the answer ('' where the model abstained); of a monitor 'NAME: raised',
            'NAME: clear' or 'NAME: unknown'.
        question: what was asked; the instruction that a caption answers.
        confidence: how sure the model was of the text, 0 to 1.
        frame_id: of the picture's header, unchanged.
        topic: of the picture.
        bag: path of the recording, as it was given.
        index: of the picture among the messages of its topic in the recording, from 0 in recorded order.
        model_id: name and content hash of the bundle.
        probabilities: of each choice, by its text; empty for free text.
        finish_reason: 'stop', 'length' or 'choice', as in `Answer`.
        generated_tokens: of the text; 0 with choices.
        calibrated: confidence and probabilities were rescaled by the bundle's calibration.
        abstained: the answer was less sure than asked for.
        monitor: its name; '' for other kinds.
        probability: that the monitor is raised, on this picture alone; None for other kinds.
        state: 'raised', 'clear' or 'unknown', after hysteresis; '' for other kinds.
        changed: whether the monitor entered another state with this picture. Records of a monitor with
            changed = False say how its probability went on; only the others are events.
        since_ns: stamp of the picture with which the monitor's state began, nanoseconds.
    """

    kind: str
    stamp_ns: int
    bag_time_ns: int
    camera: str
    text: str
    question: str
    confidence: float
    frame_id: str = ""
    topic: str = ""
    bag: str = ""
    index: int = 0
    model_id: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    finish_reason: str = ""
    generated_tokens: int = 0
    calibrated: bool = False
    abstained: bool = False
    monitor: str = ""
    probability: float | None = None
    state: str = ""
    changed: bool = False
    since_ns: int = 0

    @property
    def time_ns(self) -> int:
        """When it was: the stamp; where the camera filled none, the time of the recording. Nanoseconds."""
        return self.stamp_ns or self.bag_time_ns

    @property
    def is_event(self) -> bool:
        """Whether it says something new: every caption and answer, and the changes of monitors."""
        return self.kind != "monitor" or self.changed


def to_line(record: Record) -> str:
    """One line of JSON, without its end."""
    told = {name: value for name, value in asdict(record).items() if value != _DEFAULTS.get(name, MISSING)}
    return json.dumps({"version": VERSION, **told}, ensure_ascii=False)


def from_line(line: str, where: str = "the line") -> Record:
    """The record of a line. Fields of later editions of the same version are passed over.

    Raises:
        BagError: it is no record, or one of another version; the message begins with `where`.
    """
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BagError(f"{where} is not JSON: {error}") from error
    if not OBJECT.fits(told):
        raise BagError(f"{where} holds {kind_of(told)}, not a record")
    return from_dict(told, where)


def from_dict(told: dict[str, Any], where: str = "the object") -> Record:
    """The same, of the parsed object."""
    version = told.get("version")
    if version is None:
        raise BagError(
            f"{where} has no version: it is no record of `caption-bag`, `ask-bag` or `monitor-bag`"
        )
    if version != VERSION:
        raise BagError(
            f"{where} is a record of version {version!r}, and this release reads version {VERSION}: make the "
            "file again with this release, or use the one that wrote it"
        )
    values: dict[str, Any] = {}
    for name, kinds in _TYPES.items():
        value = told.get(name)
        if value is None:
            if name not in _DEFAULTS:
                raise BagError(f"{where} has no {name!r}")
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) is not (bool in kinds):
            raise BagError(f"{where} has {name} {value!r}: expected {kinds[0].__name__}")
        values[name] = value
    if values["kind"] not in KINDS:
        raise BagError(f"{where} is of kind {values['kind']!r}: known are {', '.join(KINDS)}")
    odds = values.get("probabilities", {})
    if not NUMBER_OBJECT.fits(odds):
        raise BagError(f"{where} has probabilities {odds!r}: expected a number for each choice")
    return Record(**values)


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of a JSON Lines file, one after the other (a file of any size takes little memory).

    Raises:
        BagError: the file cannot be read, or a line is no record of this version; with its number.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from_line(line, f"{path}, line {number},")
    except (OSError, UnicodeDecodeError) as error:
        raise BagError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


_DEFAULTS: dict[str, Any] = {
    item.name: item.default if item.default_factory is MISSING else item.default_factory()
    for item in fields(Record)
    if item.default is not MISSING or item.default_factory is not MISSING
}

_BY_ANNOTATION: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "float | None": (float, int),
    "bool": (bool,),
    "dict[str, float]": (dict,),
}

_TYPES = {item.name: _BY_ANNOTATION[str(item.type)] for item in fields(Record)}
