# SPDX-License-Identifier: Apache-2.0
"""How many threads are best for a bundle on this machine: what `mobilevlm tune` measured, in a small file.

It lies in the user's cache and can be deleted. A bundle, machine or number of allowed processors that was not
measured gets the default. See `load_runtime`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from pathlib import Path
from typing import Any

from mobilevlm_ros.engine.bundle import MANIFEST, Bundle
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.atomic import make_directory, write_file
from mobilevlm_ros.files.json_fields import read_json
from mobilevlm_ros.files.user_cache import user_cache

logger = logging.getLogger(__name__)

_MOST = 256
"""Threads; more in the file is not believed."""


def tuning_file() -> Path:
    """Where the settings are kept; it may not be there."""
    return user_cache() / "tuning.json"


def tuned_threads(bundle: Bundle) -> int:
    """Threads that were found best for this bundle on this machine; 0 where nobody measured."""
    threads = _read().get(_key(bundle), {}).get("threads", 0)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= _MOST:
        logger.warning("%s names no number of threads for %s: not used", tuning_file(), bundle.path)
        return 0
    return threads


def keep_threads(bundle: Bundle, threads: int, measured: dict[str, Any]) -> Path:
    """Writes what was measured, beside what is known of other bundles. Raises OutputError."""
    path = tuning_file()
    make_directory(path.parent)
    entry = {"model": bundle.manifest.name, "threads": threads, "measured": measured}
    text = json.dumps({**_read(), _key(bundle): entry}, indent=1, sort_keys=True) + "\n"
    write_file(path, text.encode(), overwrite=True)
    return path


def _read() -> dict[str, Any]:
    try:
        if not tuning_file().exists():
            return {}
        found = read_json(tuning_file())
    except (CheckpointError, OSError) as error:
        logger.warning("the settings of `mobilevlm tune` are not used: %s", error)
        return {}
    return {key: value for key, value in found.items() if isinstance(value, dict)}


def _key(bundle: Bundle) -> str:
    """Stands for the bundle's content, the processor, and how much of it this process may use."""
    digest = hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()[:16]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{digest} on {_processor()}, {allowed} processors"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
