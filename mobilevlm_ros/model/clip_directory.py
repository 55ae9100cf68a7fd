# SPDX-License-Identifier: Apache-2.0
"""Where the CLIP directory that a checkpoint names is on this machine. Never touches the network."""

from __future__ import annotations

import os
from pathlib import Path


def find_clip_directory(checkpoint: Path, name: object) -> Path | None:
    """The directory that `mm_vision_tower` names, relative to the checkpoint or in the Hugging Face cache."""
    if not isinstance(name, str) or not name:
        return None
    beside = checkpoint / name  # an absolute name replaces the checkpoint's path
    for candidate in (beside, *_cached(name)):
        if (candidate / "config.json").is_file():
            return candidate
    return None


def _cached(name: str) -> list[Path]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository = hub / ("models--" + name.replace("/", "--"))
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return []
    return [repository / "snapshots" / revision]
