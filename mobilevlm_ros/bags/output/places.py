# SPDX-License-Identifier: Apache-2.0
"""Where outputs go."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mobilevlm_ros.bags.reading.bag import SUFFIXES
from mobilevlm_ros.errors import OutputError
from mobilevlm_ros.files.atomic import check_place, make_directory

_FILES = (".jsonl", ".json", ".db3", ".bag", ".png")
"""Endings of outputs that somebody may expect and that are not made: no directories' names."""


def outputs(paths: Iterable[Path], output: Path, suffix: str) -> dict[Path, Path]:
    """Where each recording's output goes: `output` itself, or a file in it where it is a directory.

    Args:
        suffix: of the names in a directory, such as '.captions.mcap'.

    Raises:
        OutputError: several recordings and one file, or two of one name.
    """
    paths = list(paths)
    if output.suffix == ".mcap" and not output.is_dir():
        if len(paths) > 1:
            raise OutputError(f"{output} is one file for {len(paths)} recordings: give a directory, -o out/")
        return _beside({paths[0]: output})
    if (output.exists() and not output.is_dir()) or output.suffix in _FILES:
        raise OutputError(f"{output} is no .mcap: name a file that ends in .mcap, or a directory")
    found: dict[Path, Path] = {}
    for path in paths:
        name = path.resolve().name
        for ending in sorted(SUFFIXES, key=len, reverse=True):
            name = name.removesuffix(ending)
        target = output / f"{name}{suffix}"
        if target in found.values():
            raise OutputError(f"two recordings are called {name!r}: give each its own command and output")
        found[path] = target
    check_place(next(iter(found.values())), parents=True)
    make_directory(output)
    return _beside(found)


def _beside(found: dict[Path, Path]) -> dict[Path, Path]:
    """The same; no output may take the place of a recording. Raises OutputError."""
    recordings = {path.resolve() for path in found}
    for target in found.values():
        if target.resolve() in recordings:
            raise OutputError(f"{target} is a recording that is read here: name another output")
    return found
