# SPDX-License-Identifier: Apache-2.0
"""Reference checkpoints, and copies of them to change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mobilevlm_ros.model.checkpoint import load
from mobilevlm_ros.model.mobilevlm import MobileVLM

PARITY = Path(__file__).parents[1] / "data" / "parity"
CLIP = "tiny-clip-336"

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parity() -> Path:
    """Reference checkpoints and outputs."""
    return PARITY


@pytest.fixture(scope="session")
def model() -> Callable[[str], MobileVLM]:
    """Loads a reference checkpoint once; do not change it."""
    loaded: dict[str, MobileVLM] = {}

    def get(name: str) -> MobileVLM:
        if name not in loaded:
            loaded[name] = load(PARITY / "ckpt" / name)
        return loaded[name]

    return get


class Editable:
    """A copy of a reference checkpoint whose tensors and config.json can be changed."""

    def __init__(self, path: Path, name: str) -> None:
        shutil.copytree(PARITY / "ckpt" / name, path / name)
        shutil.copytree(PARITY / "ckpt" / CLIP, path / CLIP)
        self.path = path / name
        self.clip = path / CLIP

    def tensors(self) -> dict[str, Tensor]:
        return dict(torch.load(self.path / "pytorch_model.bin", weights_only=True))

    def write(self, tensors: dict[str, Tensor], layout: str = "pytorch_model.bin") -> None:
        """Replaces the weights; `layout` is the file that holds or indexes them."""
        for old in (*self.path.glob("pytorch_model*"), *self.path.glob("model*")):
            old.unlink()
        save = save_file if "safetensors" in layout else torch.save
        if not layout.endswith(".json"):
            save(tensors, self.path / layout)
            return
        stem, _, ending = layout.removesuffix(".index.json").partition(".")
        names = list(tensors)
        where: dict[str, str] = {}
        for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
            shard = f"{stem}-{number:05}-of-00002.{ending}"
            save({name: tensors[name] for name in part}, self.path / shard)
            where.update(dict.fromkeys(part, shard))
        self.write_json(layout, {"metadata": {}, "weight_map": where})

    def write_json(self, name: str, data: Any) -> None:
        (self.path / name).write_text(json.dumps(data))

    def configure(self, **changes: Any) -> None:
        """Changes keys of config.json; ... removes one."""
        config = {**json.loads((self.path / "config.json").read_text()), **changes}
        self.write_json("config.json", {key: value for key, value in config.items() if value is not ...})


@pytest.fixture
def v1(tmp_path: Path) -> Editable:
    return Editable(tmp_path, "tiny-ldpnet")


@pytest.fixture
def v2(tmp_path: Path) -> Editable:
    return Editable(tmp_path, "tiny-ldpnetv2")
