# SPDX-License-Identifier: Apache-2.0
"""Where a job stands: a file beside its output that grows by a line for each frame, and is gone at the end.

A process may be killed at any moment: what it had said stays, and the next one goes on. The file is locked
while somebody works.
"""

from __future__ import annotations

import fcntl
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from mobilevlm_ros.bags.job.entries import Entry
from mobilevlm_ros.errors import BagError, Busy, OutputError
from mobilevlm_ros.files.atomic import remove_file

VERSION = 1
"""Of the file; another one is refused."""

SUFFIX = ".unfinished"

_SYNC_PERIOD = 2.0
"""Seconds after which the disk has what was written: more is lost only if the machine fails."""


def journal_path(output: Path) -> Path:
    """Beside the output that it is for."""
    return output.with_name(output.name + SUFFIX)


class Journal:
    """See above. A context manager.

    Args:
        output: the file that the job makes.
        job: `Job.fingerprint`.
        anew: begin from the start, whatever is there.

    Raises:
        Busy: another process works on it.
        OutputError: it cannot be written, or was begun by another job or release.
    """

    def __init__(self, output: Path, job: dict[str, Any], *, anew: bool = False) -> None:
        self.path = journal_path(output)
        self._stream = _locked(self.path)
        self._offsets = array("q")  # of entries, by their order in the file
        self._numbers = array("q")
        self._synced = monotonic()
        try:
            self._begin(job, anew)
        except BaseException:
            self._stream.close()
            raise
        self.resumed = len(self._numbers)
        self._done = set(self._numbers)

    def __contains__(self, number: int) -> bool:
        """Whether a frame has been answered."""
        return number in self._done

    def __len__(self) -> int:
        return len(self._done)

    def numbers(self) -> list[int]:
        """Of the frames that have been answered."""
        return sorted(self._done)

    def add(self, entry: Entry) -> None:
        """Keep it. Raises OutputError when the disk is full; what was kept before stays."""
        if entry.number in self._done:
            return
        offset = self._stream.seek(0, os.SEEK_END)
        try:
            self._stream.write(entry.to_line().encode() + b"\n")
            self._stream.flush()
            if monotonic() - self._synced > _SYNC_PERIOD:
                self.sync()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._offsets.append(offset)
        self._numbers.append(entry.number)
        self._done.add(entry.number)

    def sync(self) -> None:
        """Wait until the disk has it. Raises OSError."""
        os.fsync(self._stream.fileno())
        self._synced = monotonic()

    def entries(self) -> Iterator[Entry]:
        """All of them, by their numbers."""
        for place in sorted(range(len(self._numbers)), key=self._numbers.__getitem__):
            self._stream.seek(self._offsets[place])
            yield Entry.from_line(self._stream.readline().decode())

    def remove(self) -> None:
        """The output is complete."""
        remove_file(self.path)

    def close(self) -> None:
        """Let go of it; it stays for the next one."""
        with suppress(OSError):  # what could not be written has been said
            self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, job: dict[str, Any], anew: bool) -> None:
        first = self._stream.readline()
        if anew or not first.endswith(b"\n"):  # nothing, or killed before its first line
            if first and not anew and b'"mobilevlm_journal"' not in first and len(first) > 24:
                raise OutputError(f"{self.path} is no journal of ours: move it away, or name another output")
            try:
                self._stream.truncate(0)
                self._stream.seek(0)
                self._stream.write(json.dumps({"mobilevlm_journal": VERSION, "job": job}).encode() + b"\n")
                self._stream.flush()
            except OSError as error:
                raise self._cannot_write(error) from error
            return
        self._check(first, job)
        offset = end = self._stream.tell()
        for line in self._stream:
            if not line.endswith(b"\n"):
                break  # killed in the midst of it
            try:
                number = Entry.from_line(line.decode()).number
            except (BagError, UnicodeDecodeError) as error:
                raise OutputError(
                    f"{self.path} is damaged at byte {offset}: begin anew with --overwrite"
                ) from error
            self._offsets.append(offset)
            self._numbers.append(number)
            offset = end = offset + len(line)
        self._stream.truncate(end)

    def _check(self, first: bytes, job: dict[str, Any]) -> None:
        try:
            head = json.loads(first)
            version, before = head["mobilevlm_journal"], head["job"]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self.path} is no journal of ours: move it away, or name another output"
            ) from error
        if version != VERSION:
            raise OutputError(
                f"{self.path} was begun by another release (journal version {version!r}, here {VERSION}): "
                "finish it there, or begin anew with --overwrite"
            )
        if before != job:
            different = sorted(key for key in {*before, *job} if before.get(key) != job.get(key))
            raise OutputError(
                f"{self.path} was begun with another {' and '.join(different)}: give the same to go on, "
                "--overwrite to begin anew, or another output"
            )

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path} cannot be written: {error.strerror or error}; free space there and give the same "
            f"command again: it goes on after {len(self._numbers)} frames"
        )


def _locked(path: Path) -> BinaryIO:
    while True:
        try:
            # Not "a+": what was half written is cut off, and the place is ours to choose.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}; choose another output"
            ) from error
        stream = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            raise Busy(
                f"another process is making {path.with_suffix('')}: wait for it, or name another output"
            ) from error
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return stream
        except FileNotFoundError:
            pass
        stream.close()  # it was finished and removed in between
