# SPDX-License-Identifier: Apache-2.0
"""Files that hostile.py damages and has read."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hostile_mutations import as_json, changed_bytes, changed_text

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "models" / "nano"
DATA = ROOT / "test" / "data"


@cache
def _folder_of(process: int) -> Path:
    memory = "/dev/shm"  # nosec B108
    return Path(tempfile.mkdtemp(prefix="hostile-", dir=memory if Path(memory).is_dir() else None))


def folder() -> Path:
    """A folder of this process."""
    return _folder_of(os.getpid())


def clean() -> None:
    shutil.rmtree(folder(), ignore_errors=True)


def _file(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


# ---- configuration


def yaml_of(file: str, load: str, module: str) -> Callable[[random.Random], object]:
    @cache
    def document() -> Any:
        return yaml.safe_load((ROOT / "config" / file).read_text())

    def run(rng: random.Random) -> object:
        loader = getattr(__import__(module, fromlist=[load]), load)
        dump = lambda value: yaml.safe_dump(value, allow_unicode=True)  # noqa: E731
        try:
            data = changed_text(document(), dump, rng)
        except (yaml.YAMLError, RecursionError):  # a value that YAML cannot say
            return None
        return loader(_file(file, data))

    return run


@cache
def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _bundle() -> Path:
    path = folder() / "bundle"
    if not path.is_dir():
        shutil.copytree(NANO / "bundle", path)
    return path


def manifests(rng: random.Random) -> object:
    from mobilevlm_ros.engine.bundle import Bundle

    data = changed_text(_json(NANO / "bundle" / "bundle.json"), as_json, rng)
    (_bundle() / "bundle.json").write_bytes(data)
    return Bundle.open(_bundle())


def configs(rng: random.Random) -> object:
    from mobilevlm_ros.model.config import MobileVLMConfig

    data = changed_text(_json(DATA / "parity" / "ckpt" / "tiny-ldpnetv2" / "config.json"), as_json, rng)
    return MobileVLMConfig.from_directory(_file("config.json", data).parent)


# ---- files of weights


def ggufs(rng: random.Random) -> object:
    from mobilevlm_ros.checkpoints.gguf.file import GGUFFile

    file = GGUFFile(_file("x.gguf", changed_bytes((DATA / "gguf" / "types.gguf").read_bytes(), rng)))
    return [file.array(name) for name in list(file.tensors)[:3]]


@cache
def _safetensors() -> bytes:
    from safetensors.numpy import save

    return bytes(save({name: np.ones((4, 4), np.float32) for name in ("a.weight", "b.weight", "c.bias")}))


def weights(rng: random.Random) -> object:
    from mobilevlm_ros.checkpoints.tensor_reader import CheckpointReader

    held = folder() / "weights"
    shutil.rmtree(held, ignore_errors=True)
    held.mkdir()
    if rng.random() < 0.7:
        (held / "model.safetensors").write_bytes(changed_bytes(_safetensors(), rng))
    else:
        (held / "pytorch_model.bin").write_bytes(changed_bytes(_bin(), rng))
    reader = CheckpointReader(held)
    return [reader.tensor(name) for name in reader.keys()]  # noqa: SIM118


@cache
def _bin() -> bytes:
    import torch

    held = io.BytesIO()
    torch.save({name: torch.ones(4, 4) for name in ("a.weight", "b.bias")}, held)
    return held.getvalue()


def tokenizers(rng: random.Random) -> object:
    from mobilevlm_ros.processing.tokenizer import Tokenizer

    made = Tokenizer(_file("tokenizer.model", changed_bytes((NANO / "tokenizer.model").read_bytes(), rng)))
    return made.encode("Is there a ball?"), [made.piece(token) for token in range(made.vocab_size)]
