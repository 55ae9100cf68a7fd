# SPDX-License-Identifier: Apache-2.0
"""Which files a parameter may name when somebody on the graph sets it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.files.small_file import expanded, is_within, read_small_file
from mobilevlm_ros.ros.resources import shared_file

FILES = ("monitors_file", "presets_file")
"""Parameters that name a file that is read and whose mistakes are told."""

WRITTEN = ("memory.file",)
"""Parameters that name a file that is written."""

LIMIT = 1 << 20
"""Bytes of such a file."""


class AllowedPaths:
    """Directories that whoever started the node has named: in `allowed_paths`, and those of the files that it
    was started with; and the package's own. Whoever only sets parameters cannot make the node read others.

    Args:
        directories: the parameter `allowed_paths`.
        files: the files that the node was started with.
        written: those among them that it writes.
    """

    def __init__(self, directories: Sequence[str], files: Sequence[str], written: Sequence[str] = ()) -> None:
        shipped = shared_file("config", "monitors.yaml")
        self.named = [path for path in directories if path]
        self._written_roots = [*self.named, *map(_folder, filter(None, written))]
        self._roots: list[str | Path] = [
            *self.named,
            *map(_folder, filter(None, files)),
            *([shipped.parent] if shipped is not None else []),
        ]

    def refusal(self, name: str, path: str) -> str:
        """Why a parameter may not have this path; empty when it may.

        Files must lie in an allowed directory and be regular and small; what is written must lie in
        `allowed_paths`, or beside what the node was started with. A bundle must lie in one where
        `allowed_paths` names any: it is verified before it is used.
        """
        if not path or (name not in (*FILES, *WRITTEN) and not (name == "bundle" and self.named)):
            return ""
        if "\0" in path or not is_within(path, self._written_roots if name in WRITTEN else self._roots):
            return (
                f"{name} is {path!r}, outside the directories that may be named over the graph: put it "
                "beside the one that the node was started with, or start the node with its directory in "
                "allowed_paths"
            )
        if name in FILES:
            try:
                read_small_file(path, LIMIT, name)
            except ConfigurationError as error:
                return str(error)
        return ""


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(expanded(path)))
