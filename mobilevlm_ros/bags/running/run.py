# SPDX-License-Identifier: Apache-2.0
"""Runs jobs in this process, one recording after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from mobilevlm_ros.bags.job.entries import Entry
from mobilevlm_ros.bags.job.job import Job, Maker
from mobilevlm_ros.bags.job.journal import Journal, journal_path
from mobilevlm_ros.bags.output.files import check_outputs, is_made_by, write_outputs
from mobilevlm_ros.bags.output.states import records
from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.records import Record
from mobilevlm_ros.bags.running.answering import Answerer
from mobilevlm_ros.bags.running.prefetch import prefetch
from mobilevlm_ros.bags.running.summary import Summary
from mobilevlm_ros.bags.selection.frames import Tally, select
from mobilevlm_ros.errors import MobileVLMError

_SECOND = 1_000_000_000

NewAnswerer = Callable[[Job], Answerer]
OnRecord = Callable[[Record], None]


def run(
    path: Path,
    output: Path | None,
    make: Maker,
    answerer: NewAnswerer,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    on_record: OnRecord | None = None,
) -> Summary:
    """Does one recording's job.

    Args:
        path: of the recording.
        output: the MCAP to make; None: records go to `on_record` only, and nothing is kept.
        make: the job of the open recording.
        answerer: the model at work on it; asked for once there is something to do.
        overwrite: replace what is there, and begin anew.
        quiet: no progress bar.
        on_record: gets each record in the order of the recording; with an output, at the end.

    Raises:
        BagError, OptionError: the recording cannot be read, or has not what was asked for.
        OutputError: the output cannot be written; the same command goes on where it stopped.
        Busy: another process makes the same output.
        MobileVLMError: the model failed; likewise.
    """
    with Bag(path) as bag:
        job = make(bag)
        summary = Summary(job.bag, "" if output is None else str(output), job.kind)
        summary.cameras = {camera.name: camera.topic for camera in job.selection.cameras}
        start = monotonic()
        if output is None:
            _stream(bag, job, answerer(job), summary, quiet, on_record)
        else:
            _write(bag, job, output, answerer, summary, overwrite, quiet, on_record)
        summary.seconds = monotonic() - start
        summary.damage = list(dict.fromkeys(bag.damage))
    return summary


def _stream(
    bag: Bag, job: Job, answer: Answerer, summary: Summary, quiet: bool, on_record: OnRecord | None
) -> None:
    for record in records(job, _entries(bag, job, answer, summary, quiet)):
        summary.records += 1
        if on_record is not None:
            on_record(record)


def _write(
    bag: Bag,
    job: Job,
    output: Path,
    answerer: NewAnswerer,
    summary: Summary,
    overwrite: bool,
    quiet: bool,
    on_record: OnRecord | None,
) -> None:
    fingerprint = job.fingerprint()
    if not overwrite and is_made_by(output, fingerprint):
        summary.already_done = True
        forget(output, fingerprint)
        return
    check_outputs(output, job, overwrite)
    with Journal(output, fingerprint, anew=overwrite) as journal:
        summary.resumed = journal.resumed
        for entry in _entries(bag, job, answerer(job), summary, quiet, journal):
            journal.add(entry)
        summary.frames = len(journal)
        finish(job, output, journal, summary, fingerprint, overwrite, on_record)


def finish(
    job: Job,
    output: Path,
    journal: Journal,
    summary: Summary,
    fingerprint: dict[str, object],
    overwrite: bool = False,
    on_record: OnRecord | None = None,
) -> None:
    """All frames are answered: the output, and no journal any more."""
    summary.records = write_outputs(
        output, job, fingerprint, lambda: records(job, journal.entries()), overwrite=overwrite
    )
    if on_record is not None:
        for record in records(job, journal.entries()):
            on_record(record)
    journal.remove()


def forget(output: Path, fingerprint: dict[str, object]) -> None:
    """Removes the journal that a process left which was killed after its output was complete."""
    if journal_path(output).exists():
        with suppress(MobileVLMError), Journal(output, fingerprint) as journal:
            journal.remove()


def _entries(
    bag: Bag, job: Job, answer: Answerer, summary: Summary, quiet: bool, journal: Journal | None = None
) -> Iterator[Entry]:
    """What the model says about the frames that nobody has answered yet."""
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(bag, job, summary.tally, quiet))
        selected = select(bag, job.selection, summary.tally)
        # A closed generator ends its thread before the recording is closed.
        frames = stack.enter_context(closing(prefetch(selected)))  # type: ignore[type-var]
        for frame in frames:
            if journal is None or frame.number not in journal:
                yield answer(frame)
                summary.frames += 1
            bar.update(frame.bag_time_ns)
        bar.finish()


class Progress:
    """A bar on stderr over the recording's time, with the time that is left. A context manager."""

    def __init__(self, bag: Bag, job: Job, tally: Tally, quiet: bool) -> None:
        start, end = bag.start_ns or 0, bag.end_ns or bag.start_ns or 0
        self._start = max(start, job.selection.start_ns)
        self._end = max(self._start, min(end, job.selection.end_ns))
        self._tally = tally
        self._at = self._start
        self._bar: tqdm[Any] = tqdm(
            total=max(1e-3, (self._end - self._start) / _SECOND),
            desc=bag.path.name,
            disable=True if quiet else None,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of it "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def update(self, time_ns: int) -> None:
        """The frame of this time of the recording has been answered."""
        if time_ns > self._at:
            self._bar.update((min(time_ns, self._end) - self._at) / _SECOND)
            self._at = min(time_ns, self._end)
        bad = f", {self._tally.bad} bad" if self._tally.bad else ""
        self._bar.set_postfix_str(f"{self._tally.selected} frames{bad}", refresh=False)

    def finish(self) -> None:
        """Everything has been answered."""
        self._bar.update(max(0.0, (self._end - self._at) / _SECOND))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
