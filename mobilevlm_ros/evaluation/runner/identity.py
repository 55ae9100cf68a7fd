# SPDX-License-Identifier: Apache-2.0
"""Which model gave an answer: its name, backend, and a digest of what it was made of."""

from __future__ import annotations

import hashlib
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mobilevlm_ros.engine.bundle import MANIFEST
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.evaluation.latency.measure import machine
from mobilevlm_ros.version import __version__

_EDGE = 1 << 20  # bytes read at either end of a weights file


def model_identity(runtime: Runtime) -> dict[str, Any]:
    """`model_id` (name, backend and digest, fit for a folder's name) and what it stands for."""
    manifest = runtime.bundle.manifest
    digest = fingerprint(runtime.bundle.path)
    name = re.sub(r"[^\w.-]+", "_", manifest.name) or "model"
    return {
        "model_id": f"{name}-{runtime.backend_name}-{digest[:8]}",
        "model": manifest.name,
        "backend": runtime.backend_name,
        "precision": dict(manifest.precision) or "float32",
        "fingerprint": digest,
        "prompt_template": manifest.template,
    }


def fingerprint(path: Path) -> str:
    """sha256 of a bundle's manifest, which holds the digest of each of its files; of a checkpoint, of its
    configuration, and of the size and both ends of each weights file (reading all would take minutes).
    """
    if (path / MANIFEST).is_file():
        return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    digest = hashlib.sha256()
    files = [
        f for pattern in ("config.json", "*.model", "*.safetensors", "*.bin") for f in path.glob(pattern)
    ]
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_EDGE))
            stream.seek(max(0, size - _EDGE))
            digest.update(stream.read(_EDGE))
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """Versions and machine, for summaries."""
    found = {"mobilevlm_ros": __version__, "python": platform.python_version()}
    for package in ("numpy", "onnxruntime", "torch", "sentencepiece", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "machine": machine()}
