# SPDX-License-Identifier: Apache-2.0
"""How SQLite is told to open a memory's file, and what helps where it cannot."""

from __future__ import annotations

import os
from pathlib import Path

LOCK_WAIT = 5.0
"""Seconds that a writer waits for another one."""


def address(path: Path, writable: bool) -> str:
    """The URI of the file (sqlite.org/uri.html): to write, and then made where it is missing, or to be read.

    A file in WAL mode needs others beside it, for readers too. Where none can be made (a read-only disk) and
    none is there, nobody writes the file: then SQLite reads it as one that does not change.
    """
    told = f"{path.absolute().as_uri()}?mode={'rwc' if writable else 'ro'}"
    beside = path.with_name(f"{path.name}-wal")
    if not writable and not beside.exists() and not os.access(path.parent, os.W_OK):
        told += "&immutable=1"
    return told


def remedy(reason: str) -> str:
    """What helps against an error of SQLite, by its text."""
    if "locked" in reason or "busy" in reason:
        return (
            f"another job has been writing it for {LOCK_WAIT:.0f} s: wait for that one, or name another file"
        )
    if "not a database" in reason or "malformed" in reason:
        return "it is another kind of file, or damaged: name another one, or make it with `mobilevlm index`"
    if "full" in reason:
        return "free space there, then run it again: what was committed stays"
    if "readonly" in reason or "unable to open" in reason:
        return "allow reading and writing it and its directory, or name another file"
    return "if it is damaged, make it again with `mobilevlm index`"
