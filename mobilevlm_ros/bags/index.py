# SPDX-License-Identifier: Apache-2.0
"""From files of records to a memory that one can search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from mobilevlm_ros.bags.records import SUFFIX, Record, from_line
from mobilevlm_ros.errors import BagError
from mobilevlm_ros.memory.record import Record as Remembered
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.memory.vectors import TextVectors
from mobilevlm_ros.ros.images.encodings import Encodings

if TYPE_CHECKING:
    from mobilevlm_ros.bags.enrich import PlaceSource, Recording

BATCH = 1000
"""Records of one transaction: what a kill can lose, and what another job waits for."""

_NAMED = 5  # bad lines that are told one by one


@dataclass
class Indexed:
    """What became of the files.

    Attributes:
        files: that hold records.
        added: records that were new.
        known: records that the memory had already.
        passed: records that say nothing: evaluations of monitors without a change, abstentions.
        bad: lines that are no record.
        trouble: the first of those lines and files, in sentences.
    """

    files: int = 0
    added: int = 0
    known: int = 0
    passed: int = 0
    bad: int = 0
    trouble: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Keep one of the first troubles."""
        if len(self.trouble) < _NAMED:
            self.trouble.append(text)


def record_files(paths: Sequence[Path]) -> list[Path]:
    """The files of records that are meant: those in a directory and below it, and those beside a recording
    that `caption-bag` and the like wrote.

    Raises:
        BagError: a path is missing, or has no records.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob(f"*{SUFFIX}"))
            if not inside:
                raise BagError(
                    f"{path} holds no file of records (*{SUFFIX}): run `mobilevlm caption-bag` first"
                )
            found += inside
            continue
        file = path if path.suffix == SUFFIX else path.with_suffix(SUFFIX)
        if not path.exists() or not file.is_file():
            raise BagError(
                f"{file} does not exist: give files of records (*{SUFFIX}, of `mobilevlm caption-bag`, "
                "`ask-bag` or `monitor-bag`), or a directory of them"
            )
        found.append(file)
    return list(dict.fromkeys(found))


def index(
    paths: Sequence[Path],
    store: MemoryStore,
    vectors: TextVectors | None,
    *,
    places: PlaceSource | None = None,
    pictures: bool = False,
    encodings: Encodings | None = None,
    progress: bool = False,
) -> Indexed:
    """Adds the records of files to a memory; records that it has already are not added again.

    Args:
        places: what of the recordings says where the pictures were taken; None: that stays unknown.
        pictures: add thumbnails from the recordings.
        encodings: how to read their pictures.

    A line that is no record is counted and named, and the rest is read: whoever wrote the file may have been
    killed in the middle of a line.

    Raises:
        BagError: a path or a recording is missing, or no line of any file is a record.
        MemoryFileError: the memory cannot be written.
    """
    files = record_files(paths)
    told = Indexed()
    total = sum(file.stat().st_size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, disable=None if progress else True) as bar:
        for file in files:
            before = told.added + told.known + told.passed
            with closing(_Enricher(file, places, pictures, encodings or {})) as enricher:
                batch: list[Remembered] = []
                for record in _records(file, told, bar.update):
                    batch.append(enricher.remembered(record))
                    if len(batch) >= BATCH:
                        _keep(store, batch, vectors, told)
                        batch = []
                _keep(store, batch, vectors, told)
            told.files += told.added + told.known + told.passed > before
    if not told.files:
        reasons = "; ".join(told.trouble) or "they are empty"
        raise BagError(f"no record was found in {', '.join(map(str, files[:3]))}: {reasons}")
    return told


def _keep(
    store: MemoryStore, batch: Sequence[Remembered], vectors: TextVectors | None, told: Indexed
) -> None:
    if batch:
        added = store.add(batch, vectors)
        told.added += added
        told.known += len(batch) - added


def _records(file: Path, told: Indexed, advance: Callable[[int], object]) -> Iterator[Record]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                advance(len(line))
                where = f"{file}, line {number},"
                try:
                    text = line.decode("utf-8").strip()
                    if not text:
                        continue
                    record = from_line(text, where)
                except UnicodeDecodeError as error:
                    told.bad += 1
                    told.say(f"{where} is no UTF-8: {error.reason}")
                    continue
                except BagError as error:
                    told.bad += 1
                    told.say(str(error))
                    continue
                if record.is_event and record.text and record.state != "unknown":
                    yield record
                else:
                    told.passed += 1
    except OSError as error:
        raise BagError(f"{file} cannot be read: {error.strerror or error}") from error


class _Enricher:
    """Makes of one file's records what a memory keeps, with places and pictures where they are wanted."""

    def __init__(self, file: Path, places: PlaceSource | None, pictures: bool, encodings: Encodings) -> None:
        self._file = file
        self._places = places
        self._pictures = pictures
        self._encodings = encodings
        self._recordings: dict[str, Recording] = {}

    def remembered(self, record: Record) -> Remembered:
        """See `remembered`. Raises BagError."""
        if not (self._places or self._pictures):
            return remembered(record)
        recording = self._recordings.get(record.bag)
        if recording is None:
            from mobilevlm_ros.bags.enrich import PlaceSource, Recording  # needs rosbags

            path = self._found(record.bag)
            recording = Recording(path, self._places or PlaceSource(), self._pictures, self._encodings)
            self._recordings[record.bag] = recording
        place, small = recording.place(record), recording.picture(record)
        return replace(remembered(record), position=place, thumbnail=small)

    def close(self) -> None:
        """Let go of the recordings."""
        for recording in self._recordings.values():
            recording.close()

    def _found(self, bag: str) -> Path:
        """The recording: where it was, or beside the file of records or its directory."""
        name = Path(bag).name
        for path in (Path(bag), self._file.parent / name, self._file.parent.parent / name):
            if name and path.exists():
                return path
        raise BagError(
            f"{self._file} is of the recording {bag or '(not named)'}, which is not there: put it beside "
            f"{self._file.name}, or index without --thumbnails, --odometry and --tf"
        )


def remembered(record: Record) -> Remembered:
    """The record as a memory keeps it; the instruction that a caption answers says nothing about it."""
    return Remembered(
        stamp_ns=record.time_ns,
        camera=record.camera,
        kind=record.kind,
        text=record.text,
        question="" if record.kind == "caption" else record.question,
        confidence=record.confidence,
        model_id=record.model_id,
        frame_id=record.frame_id,
        topic=record.topic,
        bag=record.bag,
    )
