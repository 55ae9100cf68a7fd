# SPDX-License-Identifier: Apache-2.0
"""Which files of a directory are a bundle's: those alone may go when it is replaced."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from mobilevlm_ros.engine.bundle import MANIFEST
from mobilevlm_ros.engine.manifest import is_plain_name
from mobilevlm_ros.engine.tensorrt.plans import plan_files
from mobilevlm_ros.errors import BundleOutputError
from mobilevlm_ros.files.atomic_directory import DirectoryKind


def bundle_members(directory: Path) -> frozenset[str] | None:
    """What its manifest names, the manifest and the plans made there; None when it is no bundle.

    A manifest of another schema version will do: it may be what shall be replaced.
    """
    file = directory / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    names = data.get("files") if isinstance(data, dict) and "schema_version" in data else None
    if not isinstance(names, dict) or not all(map(is_plain_name, names)):
        return None
    plans = (str(path.relative_to(directory)) for path in plan_files(directory))
    return frozenset((MANIFEST, *names, *plans))


def keep_plans(old: Path, new: Path) -> None:
    """Gives a new bundle the plans of the one that it replaces: they took minutes, and some may still fit."""
    if bundle_members(old) is None:
        return
    for plan in plan_files(old):
        target = new / plan.relative_to(old)
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(plan, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(plan, target)


BUNDLE = DirectoryKind("bundle", bundle_members, BundleOutputError, "--force")
"""What `mobilevlm build` writes."""
