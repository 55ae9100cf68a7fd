# SPDX-License-Identifier: Apache-2.0
"""A recording: a file, or the directory that `ros2 bag record` makes."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import yaml
import zstandard

from mobilevlm_ros.bags.reading import mcap_file, ros1_file, sqlite_file
from mobilevlm_ros.bags.reading.recorded import LARGEST, ZSTD_MAGIC, BagFile, RecordedMessage, Topic
from mobilevlm_ros.errors import BagError
from mobilevlm_ros.files.small_file import read_small_file

SUFFIXES = (".mcap", ".db3", ".bag", ".mcap.zstd", ".db3.zstd", ".bag.active")
METADATA = "metadata.yaml"
FOR_EVER = (-(1 << 63), (1 << 63) - 1)
"""Times between which everything lies, nanoseconds."""

_FORMATS = (
    (mcap_file.MAGIC, mcap_file.McapFile),
    (sqlite_file.MAGIC, sqlite_file.SqliteFile),
    (ros1_file.MAGIC, ros1_file.Ros1File),
)
_METADATA_LIMIT = 64 << 20  # a recorder that lists tens of thousands of files stays below
_HEAD = 16  # bytes that tell a format


class Bag:
    """A recording that is open. A context manager.

        with Bag("drive.mcap") as bag:
            for message in bag.messages(["/front/image_raw"]):
                ...

    Attributes:
        path: as given.
        topics: by name, in alphabetical order.
        start_ns, end_ns: of the first and last message, nanoseconds; None where it is empty.

    Args:
        path: an MCAP, sqlite3 (.db3) or ROS 1 (.bag) file, or a directory of rosbag2. Files that were
            compressed as a whole (.zstd) are unpacked beside the system's temporary files.

    Raises:
        BagError: it is none of these, or cannot be read at all.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._damage: list[str] = []
        self._stack = ExitStack()
        try:
            self._files = [self._open(file) for file in self._names()]
        except BaseException:
            self._stack.close()
            raise
        self.topics = _merged([topic for file in self._files for topic in file.topics])
        self.start_ns = min((f.start_ns for f in self._files if f.start_ns is not None), default=None)
        self.end_ns = max((f.end_ns for f in self._files if f.end_ns is not None), default=None)

    def messages(
        self, topics: Collection[str], start_ns: int = FOR_EVER[0], end_ns: int = FOR_EVER[1]
    ) -> Iterator[RecordedMessage]:
        """Messages of some topics, recorded from `start_ns` to `end_ns`, in recorded order.

        What is damaged is left out, and said in `damage`. One iteration at a time.
        """
        wanted, index = frozenset(topics), Counter[str]()
        for file in self._files:
            for message in file.messages(wanted, index, start_ns, end_ns):
                yield _unpacked(message) if message.data.startswith(ZSTD_MAGIC) else message

    @property
    def damage(self) -> list[str]:
        """What could not be read so far, in sentences."""
        return [*self._damage, *(text for file in self._files for text in file.damage)]

    def close(self) -> None:
        """Let go of the files."""
        self._stack.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _names(self) -> list[Path]:
        path = self.path
        if path.is_file():
            return [path]
        if not path.exists():
            raise BagError(f"{path} does not exist: give a recording, or the directory of one")
        if not path.is_dir():
            raise BagError(
                f"{path} is a device, a pipe or a socket: give a recording, or the directory of one"
            )
        there = sorted(
            (file for file in path.iterdir() if file.name.endswith(SUFFIXES)), key=lambda f: _natural(f.name)
        )
        listed = self._listed()
        files = there if listed is None else [file for file in listed if file.exists()]
        for file in listed or ():
            if not file.exists():
                self._damage.append(f"{file} is named in {METADATA} and is missing: it is left out")
        if not files:
            raise BagError(f"{path} holds no recording ({', '.join(SUFFIXES)}): give the directory of one")
        return files

    def _listed(self) -> list[Path] | None:
        """Files in the order of metadata.yaml; None where there is none (a recorder that was killed)."""
        metadata = self.path / METADATA
        if not metadata.is_file():
            self._damage.append(
                f"{self.path} has no {METADATA}: its files are read in the order of their names"
            )
            return None
        try:
            told = yaml.safe_load(read_small_file(metadata, _METADATA_LIMIT, METADATA))
            names = told["rosbag2_bagfile_information"]["relative_file_paths"]
            return [self.path / Path(str(name)).name for name in names]
        except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = (
                f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else "it makes no sense"
            )
            self._damage.append(f"{metadata} is passed over ({reason}): files are read in the order of names")
            return None

    def _open(self, path: Path) -> BagFile:
        head, given = _head(path), path
        if head.startswith(ZSTD_MAGIC):
            path = self._decompressed(path)
            head = _head(path)
        for magic, kind in _FORMATS:
            if head.startswith(magic):
                try:
                    file: BagFile = kind(path)
                except OSError as error:
                    raise BagError(f"{path} cannot be read: {error.strerror or error}") from error
                self._stack.callback(file.close)
                return file
        what = "is empty" if not head else "is not a recording"
        raise BagError(f"{given} {what}: give an MCAP, a .db3 of rosbag2, or a .bag of ROS 1")

    def _decompressed(self, path: Path) -> Path:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mobilevlm-bag-")))
        plain = folder / path.name.removesuffix(".zstd")
        try:
            with path.open("rb") as packed, plain.open("wb") as file:
                zstandard.ZstdDecompressor().copy_stream(packed, file)
        except zstandard.ZstdError as error:
            self._damage.append(f"{path} is damaged or breaks off ({error}): the rest is left out")
        except OSError as error:
            raise BagError(f"{path} cannot be unpacked into {folder}: {error.strerror or error}") from error
        return plain


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise BagError(f"{path} cannot be read: {error.strerror or error}") from error


def _unpacked(message: RecordedMessage) -> RecordedMessage:
    """A message that the recorder compressed; as it is where that fails (no picture comes of it)."""
    try:
        data = zstandard.ZstdDecompressor().decompress(message.data, max_output_size=LARGEST)
    except zstandard.ZstdError:
        return message
    return replace(message, data=data)


def _merged(topics: list[Topic]) -> dict[str, Topic]:
    """Topics that are in several files, once."""
    found: dict[str, Topic] = {}
    for topic in sorted(topics, key=lambda topic: topic.name):
        before = found.get(topic.name)
        if before is not None:
            known = before.count is not None and topic.count is not None
            topic = replace(topic, count=(before.count or 0) + (topic.count or 0) if known else None)
        found[topic.name] = topic
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """drive_2 before drive_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
