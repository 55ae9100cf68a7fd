# SPDX-License-Identifier: Apache-2.0
"""Writes a job's MCAP and JSON Lines; each appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mcap.exceptions import McapError
from mcap.reader import make_reader

from mobilevlm_ros.bags.job.job import Job
from mobilevlm_ros.bags.messages import TOPICS, TYPES, MonitorSettings, serialize
from mobilevlm_ros.bags.output.mcap_writer import McapWriter
from mobilevlm_ros.bags.records import SUFFIX, Record, read_records, to_line
from mobilevlm_ros.errors import BagError
from mobilevlm_ros.files.atomic import check_file, new_file

METADATA = "mobilevlm"
"""Name of the MCAP metadata record that tells which job made a file."""

VERSION = "1"


def lines_path(output: Path) -> Path:
    """Of the JSON Lines beside an MCAP."""
    return output.with_suffix(SUFFIX)


def check_outputs(output: Path, job: Job, overwrite: bool) -> None:
    """Raises OutputError when something is there that may not be replaced."""
    check_file(lines_path(output), overwrite=overwrite, ours=_left_by(job))
    check_file(output, overwrite=overwrite)


def is_made_by(output: Path, fingerprint: dict[str, Any]) -> bool:
    """Whether both files are there already, made by this very job."""
    if not (output.is_file() and lines_path(output).is_file()):
        return False
    try:
        with output.open("rb") as stream:
            for record in make_reader(stream).iter_metadata():
                if record.name == METADATA and record.metadata.get("version") == VERSION:
                    return bool(json.loads(record.metadata["job"]) == fingerprint)
    except (McapError, OSError, ValueError, KeyError, RuntimeError):
        pass
    return False


def write_outputs(
    output: Path,
    job: Job,
    fingerprint: dict[str, Any],
    records: Callable[[], Iterable[Record]],
    *,
    overwrite: bool = False,
) -> int:
    """Writes both files; returns how many records they hold.

    Args:
        records: gives them in order, each time from the start.

    Raises:
        OutputError: they cannot be written.
    """
    count = 0
    lines = lines_path(output)
    with (
        new_file(lines, overwrite=overwrite, ours=_left_by(job)) as part,
        part.open("x", encoding="utf-8") as file,
    ):
        for record in records():
            file.write(to_line(record) + "\n")
            count += 1
    with new_file(output, overwrite=overwrite) as part:
        _write_mcap(part, job, fingerprint, records())
    return count


def _left_by(job: Job) -> Callable[[Path], bool]:
    """Tells JSON Lines of this job whose MCAP is missing: a process was killed between the two."""

    def is_ours(path: Path) -> bool:
        if path.with_suffix(".mcap").exists():
            return False
        try:
            first = next(read_records(path), None)
        except BagError:
            return False
        return first is None or (first.bag, first.kind, first.model_id) == (job.bag, job.kind, job.model_id)

    return is_ours


def _write_mcap(path: Path, job: Job, fingerprint: dict[str, Any], records: Iterable[Record]) -> None:
    settings = {m.name: MonitorSettings(m.threshold_up, m.threshold_down, m.hold_time) for m in job.monitors}
    about = {"version": VERSION, "job": json.dumps(fingerprint), "model_id": job.model_id}
    with path.open("xb") as stream:
        writer = McapWriter(stream, {METADATA: about})
        topic = writer.add_topic(TOPICS[job.kind], TYPES[job.kind])
        for record in records:
            writer.write(topic, max(0, record.bag_time_ns), serialize(record, settings.get(record.monitor)))
        writer.finish()
