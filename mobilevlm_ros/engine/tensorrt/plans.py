# SPDX-License-Identifier: Apache-2.0
"""Plans on disk: each carries the key of what it was built from and on, and is rebuilt when that differs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mobilevlm_ros.engine.cuda.device import Gpu
from mobilevlm_ros.files.atomic import new_file, remove_file
from mobilevlm_ros.files.small_file import regular
from mobilevlm_ros.files.user_cache import user_cache

logger = logging.getLogger(__name__)

_MAGIC = b"mobilevlm_ros plan 1\n"
FOLDER = "plans"
"""Inside the bundle; where that cannot be written, under the user's cache directory."""
TIMING = "timing.trt{version}.{capability}.cache"
"""Name of TensorRT's timing cache, which makes the next plan of a similar graph faster."""


@dataclass(frozen=True)
class Key:
    """What a plan depends on: it is of no use anywhere else."""

    onnx_sha256: str
    tensorrt: str
    gpu: str
    capability: str
    precision: str
    profiles: str

    @classmethod
    def of(cls, onnx_sha256: str, tensorrt: str, gpu: Gpu, precision: str, profiles: object) -> Key:
        """`profiles` is anything whose text tells shapes apart."""
        digest = hashlib.sha256(repr(profiles).encode()).hexdigest()[:16]
        capability = f"sm_{gpu.capability[0]}{gpu.capability[1]}"
        return cls(onnx_sha256, tensorrt, gpu.name, capability, precision, digest)

    @property
    def digest(self) -> str:
        """Short text that differs when anything does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class PlanCache:
    """A folder of plans."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def beside(cls, bundle: Path) -> PlanCache:
        """In the bundle if it can be written, so that copying the bundle keeps its plans; else in the cache
        directory of the user."""
        if os.access(bundle, os.W_OK):
            return cls(bundle / FOLDER)
        return cls(user_cache() / FOLDER)

    def path(self, name: str, key: Key) -> Path:
        """Where the plan of graph `name` is, or will be."""
        return self.folder / f"{Path(name).stem}.trt{key.tensorrt}.{key.capability}.{key.digest}.plan"

    def load(self, name: str, key: Key) -> bytes | None:
        """The plan, or None (with a log line) when there is none that fits."""
        path = self.path(name, key)
        try:
            content = regular(path).read_bytes()
        except FileNotFoundError:
            logger.info("no plan of %s for TensorRT %s on %s yet", name, key.tensorrt, key.gpu)
            return None
        except OSError as error:
            logger.warning("the plan %s cannot be read (%s): building it again", path, error)
            return None
        plan, trouble = _unpack(content, key)
        if trouble:
            logger.warning("the plan %s %s: building it again", path, trouble)
        return plan

    def store(self, name: str, key: Key, plan: bytes) -> None:
        """Writes a plan whole or not at all. One that cannot be written is a log line: it still runs."""
        path = self.path(name, key)
        header = json.dumps({**asdict(key), "sha256": hashlib.sha256(plan).hexdigest()}, sort_keys=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_file(path, overwrite=True) as part, part.open("wb") as stream:
                stream.write(_MAGIC + header.encode() + b"\n")
                stream.write(plan)
        except OSError as error:
            logger.warning("the plan %s cannot be written (%s): the next start builds it again", path, error)

    def discard(self, name: str, key: Key) -> None:
        """Removes a plan that TensorRT refused."""
        try:
            remove_file(self.path(name, key))
        except OSError as error:
            logger.warning("the plan %s cannot be removed: %s", self.path(name, key), error)

    def get(self, name: str, key: Key, make: Callable[[], bytes]) -> bytes:
        """The plan from disk, else made and stored."""
        plan = self.load(name, key)
        if plan is None:
            plan = make()
            self.store(name, key, plan)
        return plan


def plan_files(bundle: Path) -> list[Path]:
    """The plans and timing caches that were made in a bundle."""
    found = []
    for path in sorted((bundle / FOLDER).glob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.suffix == ".plan":
            with path.open("rb") as stream:
                if stream.read(len(_MAGIC)) == _MAGIC:
                    found.append(path)
        elif path.match(TIMING.format(version="*", capability="*")):
            found.append(path)
    return found


def _unpack(content: bytes, key: Key) -> tuple[bytes | None, str]:
    """The plan in a file, or what is wrong with it."""
    if not content.startswith(_MAGIC):
        return None, "is not a plan of ours, or is damaged"
    header, newline, plan = content[len(_MAGIC) :].partition(b"\n")
    try:
        values = json.loads(header)
    except ValueError:
        values = None
    if not newline or not isinstance(values, dict):
        return None, "is damaged"
    if {name: values.get(name) for name in asdict(key)} != asdict(key):
        return None, f"was made for something else ({values.get('gpu')}, TensorRT {values.get('tensorrt')})"
    if values.get("sha256") != hashlib.sha256(plan).hexdigest():
        return None, "is damaged (its checksum differs)"
    return plan, ""
