# SPDX-License-Identifier: Apache-2.0
"""Where the CLIP directory that a checkpoint names is on this machine. Never touches the network."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def find_clip_directory(checkpoint: Path, name: object) -> Path | None:
    """The directory that `mm_vision_tower` names, relative to the checkpoint or in the Hugging Face cache."""
    if not isinstance(name, str) or not name:
        return None
    beside = checkpoint / name  # an absolute name replaces the checkpoint's path
    with suppress(OSError, ValueError):  # no file can have that name
        for candidate in (beside, cached_snapshot(name)):
            if candidate is not None and (candidate / "config.json").is_file():
                return candidate
    return None


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloaded."""
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{general}/huggingface"
    return Path(os.path.expandvars(_named_cache() or f"{home}/hub")).expanduser()


def _named_cache() -> str | None:
    # In huggingface_hub's order; the second is its older name.
    return os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")


def cached_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The directory of a repository's revision (branch, tag or commit) in the cache, complete or not."""
    repository = hub_cache() / ("models--" + name.replace("/", "--"))
    commit = revision or "main"
    with suppress(OSError, ValueError):  # then the revision is a commit
        commit = (repository / "refs" / commit).read_text(encoding="utf-8").strip()
    path = repository / "snapshots" / commit
    return path if path.is_dir() else None
