# SPDX-License-Identifier: Apache-2.0
"""Checkpoints named by their hub id, `mtgv/MobileVLM_V2-1.7B`, from the Hugging Face cache or the network."""

from __future__ import annotations

import logging
import re
from fnmatch import fnmatch
from pathlib import Path

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.hub_cache import cached_snapshot, find_clip_directory, hub_cache
from mobilevlm_ros.files.json_fields import read_json

logger = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DESCRIPTIONS = ("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json")
# Of the layouts a repository offers, the first: safetensors need no unpickler.
_WEIGHTS = (("*.safetensors", "*.safetensors.index.json"), ("*.bin", "*.bin.index.json"))
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")


def is_hub_id(name: str | Path) -> bool:
    """Whether `name` is OWNER/NAME of a repository rather than something on this machine."""
    return bool(_ID.fullmatch(str(name))) and not Path(name).exists()


def locate(name: str | Path, revision: str | None = None) -> Path:
    """The checkpoint directory `name` means; a hub id is looked up in the cache, then downloaded.

    `revision` is a branch, tag or commit of the repository, by default its main branch. A checkpoint whose
    tower is its CLIP directory's (V1) gets that directory too. What is not a hub id is returned as it is.
    Raises CheckpointError when there is no such repository, or it cannot be reached.
    """
    if not is_hub_id(name):
        if revision is not None:
            raise CheckpointError(
                f"{name} is not OWNER/NAME of a hub repository, so it has no revision {revision}"
            )
        return Path(name)
    path = _fetch(str(name), revision, ("config.json", "tokenizer.model"))
    _fetch_tower(path)
    return path


def _fetch_tower(path: Path) -> None:
    config = read_json(path / "config.json")
    # Of the file, not of a MobileVLMConfig: to make one may take the directory that is missing.
    own = isinstance(config.get("vision_config"), dict) or "v2" in str(config.get("mm_projector_type"))
    tower = config.get("mm_vision_tower")
    if own or not isinstance(tower, str) or not is_hub_id(tower):
        return
    directory = find_clip_directory(path, tower)
    if directory is None or not _is_complete(directory):
        try:
            _fetch(tower, None, ("config.json",))
        except CheckpointError as error:  # the checkpoint carries a copy, whose use is warned of
            logger.warning("%s", error)


def _fetch(name: str, revision: str | None, needed: tuple[str, ...]) -> Path:
    # Not snapshot_download's own look into the cache: it misses the files that we never ask for.
    cached = cached_snapshot(name, revision)
    if cached is not None and _is_complete(cached, needed):
        return cached

    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    where = name if revision is None else f"{name} at revision {revision}"
    try:
        listed = HfApi().model_info(name, revision=revision).siblings or ()
        files = choose_files([file.rfilename for file in listed])
        path = Path(snapshot_download(name, revision=revision, cache_dir=hub_cache(), allow_patterns=files))
    except OfflineModeIsEnabled as error:
        raise CheckpointError(
            f"{where} is neither a directory here nor complete in the Hugging Face cache {hub_cache()}, and"
            " HF_HUB_OFFLINE forbids downloading it; unset that, or give the directory of a copy"
        ) from error
    except Exception as error:  # its HTTP library, and so what that raises, has changed more than once
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{where} is not a directory here, and cannot be downloaded ({reason}); check the name and the"
            " connection (`hf auth login` for a private one), or give the directory of a copy"
        ) from error
    if not _is_complete(path, needed):
        raise CheckpointError(
            f"the repository {where} is not a checkpoint: it lacks {', '.join(needed)} or weights;"
            " give a MobileVLM, for example mtgv/MobileVLM_V2-1.7B"
        )
    return path


def choose_files(files: list[str]) -> list[str]:
    """Which of a repository's files to download."""
    top = [file for file in files if "/" not in file and file not in _NO_WEIGHTS]
    for weights in _WEIGHTS:
        chosen = [file for file in top if _matches(file, weights)]
        if chosen:
            break
    return [file for file in top if _matches(file, _DESCRIPTIONS)] + chosen


def _matches(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _is_complete(path: Path, needed: tuple[str, ...] = ()) -> bool:
    """Whether a cached snapshot holds what is needed: an interrupted download leaves a part."""
    if not all((path / file).is_file() for file in needed):
        return False
    indices = [*path.glob("*.safetensors.index.json"), *path.glob("*.bin.index.json")]
    for index in indices:
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all((path / str(file)).is_file() for file in shards.values()):
            return False
    return bool(indices) or any(
        (path / file).is_file() for file in ("model.safetensors", "pytorch_model.bin")
    )
