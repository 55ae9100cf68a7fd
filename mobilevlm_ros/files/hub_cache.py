# SPDX-License-Identifier: Apache-2.0
"""Where the CLIP directory that a checkpoint names is on this machine. Never touches the network."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def find_clip_directory(checkpoint: Path, name: object) -> Path | None:
    """The directory that `mm_vision_tower` names, relative to the checkpoint or in the Hugging Face cache."""
    if not isinstance(name, str) or not name:
        return None
    beside = checkpoint / name  # an absolute name replaces the checkpoint's path
    for candidate in (beside, cached_snapshot(name)):
        try:
            if candidate is not None and (candidate / "config.json").is_file():
                return candidate
        except (OSError, ValueError):  # a name that is no file's
            continue
    return None


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloaded."""
    # The variables as they are now, in huggingface_hub's order; it reads them when it is imported. The second
    # is its older name.
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named is None and (library := _library()) is not None:
        named = library.constants.HF_HUB_CACHE
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{general}/huggingface"
    return Path(os.path.expandvars(named or f"{home}/hub")).expanduser()


def cached_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The directory of a repository's revision (branch, tag or commit) in the cache, complete or not, that
    holds a config.json.

    huggingface_hub looks it up where it is installed; else its layout is read as its documentation tells.
    """
    library = _library()
    if library is not None:
        try:
            # Not snapshot_download: it takes a snapshot for incomplete without files that we never ask for.
            found = library.try_to_load_from_cache(
                name, "config.json", cache_dir=hub_cache(), revision=revision
            )
        except Exception:  # no repository's name: what it raises has changed more than once
            return None
        return Path(found).parent if isinstance(found, str) else None
    repository = hub_cache() / ("models--" + name.replace("/", "--"))
    commit = revision or "main"
    with suppress(OSError, ValueError):  # then the revision is a commit
        commit = (repository / "refs" / commit).read_text(encoding="utf-8").strip()
    path = repository / "snapshots" / commit
    try:
        return path if (path / "config.json").is_file() else None
    except (OSError, ValueError):  # a name that is no file's
        return None


def _library() -> Any:
    """huggingface_hub, if it is installed; serving does without."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError:
        return None
    return huggingface_hub
