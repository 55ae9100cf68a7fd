# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories: read lazily in every published layout, checked before use, written atomically.

Nothing in a checkpoint is executed: `.bin` files go through PyTorch's weights-only unpickler.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.model.clip_directory import find_clip_directory
from mobilevlm_ros.model.config import MobileVLMConfig, read_json
from mobilevlm_ros.model.mobilevlm import MobileVLM

TOWER_PREFIX = "model.vision_tower.vision_tower."
LAYOUTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# Constants that some versions of transformers stored as if they were weights.
_IGNORED = re.compile(r"\.rotary_emb\.inv_freq$|\.embeddings\.position_ids$")
# Stored, but no feature passes through it; some re-saved checkpoints leave it out.
_OPTIONAL = re.compile(r"\.post_layernorm\.(weight|bias)$")


class CheckpointReader:
    """The tensors of a checkpoint directory, memory-mapped: nothing is read before it is asked for."""

    def __init__(self, path: str | Path) -> None:
        """Opens `path` in the first layout of LAYOUTS found there. Raises CheckpointError."""
        self.path = Path(path)
        if not self.path.is_dir():
            raise CheckpointError(
                f"{self.path} is not a directory; give the directory of a MobileVLM checkpoint"
            )
        layout = next((name for name in LAYOUTS if (self.path / name).is_file()), None)
        if layout is None:
            raise CheckpointError(f"{self.path} holds no weights; expected one of {', '.join(LAYOUTS)}")
        self._files: dict[str, _Bin | _Safetensors] = {}
        self._where = (
            self._index(layout)
            if layout.endswith(".json")
            else dict.fromkeys(self._open(layout).keys, layout)
        )

    def keys(self) -> list[str]:
        return list(self._where)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def shape(self, key: str) -> tuple[int, ...]:
        """Reads no weights. Raises CheckpointError for an unknown key."""
        return self._holder(key).shape(key)

    def tensor(self, key: str) -> Tensor:
        """The tensor in its stored dtype, still backed by the file. Raises CheckpointError for an unknown key."""
        return self._holder(key).tensor(key)

    def _holder(self, key: str) -> _Bin | _Safetensors:
        if key not in self._where:
            raise CheckpointError(f"{self.path} has no tensor {key}")
        holder = self._open(self._where[key])
        if key not in holder.keys:
            raise CheckpointError(f"{self.path / self._where[key]} lacks {key}, which the index places there")
        return holder

    def _index(self, layout: str) -> dict[str, str]:
        where = read_json(self.path / layout).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
            raise CheckpointError(f"{self.path / layout} has no usable weight_map")
        for name in sorted(set(where.values())):
            if Path(name).name != name or not (self.path / name).is_file():
                raise CheckpointError(
                    f"{self.path / layout} names {name!r}, which is not a file of this checkpoint"
                )
        return where

    def _open(self, name: str) -> _Bin | _Safetensors:
        if name not in self._files:
            self._files[name] = (_Safetensors if name.endswith(".safetensors") else _Bin)(self.path / name)
        return self._files[name]


class _Bin:
    def __init__(self, path: Path) -> None:
        try:
            self._tensors = _load_bin(path)
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{path} is not a weights-only PyTorch file, or is damaged: {error}"
            ) from error
        if not isinstance(self._tensors, dict) or not all(
            isinstance(t, Tensor) for t in self._tensors.values()
        ):
            raise CheckpointError(f"{path} does not hold a dictionary of tensors")
        self.keys = frozenset(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._tensors[key].shape)

    def tensor(self, key: str) -> Tensor:
        tensor: Tensor = self._tensors[key]
        return tensor


def _load_bin(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
    return torch.load(path, map_location="cpu", weights_only=True)  # the pre-1.6 format cannot be mapped


class _Safetensors:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is not a safetensors file, or is damaged: {error}") from error
        self.keys = frozenset(self._file.keys())

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(key).get_shape())

    def tensor(self, key: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(key)
        return tensor


class TensorSource:
    """Every tensor that inference with `config` needs, by its name in `MobileVLM.state_dict()`.

    The tower comes from where the official loader takes it: from the checkpoint for V2 and for checkpoints that
    describe their own tower; for V1 from the CLIP directory, or from the checkpoint when that is not on this machine.
    """

    def __init__(self, path: str | Path, config: MobileVLMConfig) -> None:
        self.config = config
        self.checkpoint = CheckpointReader(path)
        directory = None if config.uses_stored_tower else find_clip_directory(Path(path), config.vision_tower)
        self.clip = CheckpointReader(directory) if directory else None

    def check(self, expected: dict[str, tuple[int, ...]]) -> None:
        """Raises CheckpointError, listing every tensor that is missing, unexpected or of the wrong shape."""
        names = self.checkpoint.keys()
        stored = {key for key in names if not _IGNORED.search(key)}
        if not any(".mm_projector." in key for key in stored):
            raise CheckpointError(
                f"{self.checkpoint.path} has no projector: it is a bare language model such as MobileLLaMA;"
                " give a MobileVLM checkpoint, for example mtgv/MobileVLM_V2-1.7B"
            )
        found = {key for key in expected if self._reader(key)[1] in self._reader(key)[0]}
        missing = [key for key in expected if key not in found and not _OPTIONAL.search(key)]
        unexpected = sorted(key for key in stored if key not in expected)
        if self.config.language.tie_word_embeddings and "lm_head.weight" in unexpected:
            unexpected.remove("lm_head.weight")
        misshapen = [
            f"{key} is {list(shape)}, expected {list(expected[key])}"
            for key in expected
            if key in found and (shape := self.shape(key)) != expected[key]
        ]
        problems = [
            f"{len(names)} {kind}: {_listed(names)}"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
            if names
        ]
        if problems:
            raise CheckpointError(
                f"{self.checkpoint.path} does not fit its config.json; tensors " + "; ".join(problems)
            )

    def shape(self, key: str) -> tuple[int, ...]:
        reader, name = self._reader(key)
        return reader.shape(name)

    def tensor(self, key: str) -> Tensor:
        """In the stored dtype; a `post_layernorm` that was left out is the identity."""
        reader, name = self._reader(key)
        if name not in reader and _OPTIONAL.search(key):
            fill: Callable[..., Tensor] = torch.ones if key.endswith("weight") else torch.zeros
            return fill(self.config.vision.hidden_size)
        return reader.tensor(name)

    def _reader(self, key: str) -> tuple[CheckpointReader, str]:
        if self.clip is not None and key.startswith(TOWER_PREFIX):
            return self.clip, key.removeprefix(TOWER_PREFIX)
        return self.checkpoint, key


def _listed(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def expected_shapes(config: MobileVLMConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every stored tensor of a model with this configuration."""
    with torch.device("meta"):
        state = MobileVLM(config).state_dict()
    if config.language.tie_word_embeddings:
        del state["lm_head.weight"]
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def open_checkpoint(path: str | Path) -> tuple[MobileVLMConfig, TensorSource]:
    """Configuration and checked tensors of a checkpoint, without reading the weights. Raises CheckpointError."""
    config = MobileVLMConfig.from_directory(path)
    source = TensorSource(path, config)
    source.check(expected_shapes(config))
    return config, source


def load(path: str | Path, dtype: torch.dtype | None = torch.float32) -> MobileVLM:
    """The model of a checkpoint directory, in evaluation mode on the CPU; `dtype` None keeps each tensor's own.

    Raises CheckpointError: see `TensorSource.check` and `MobileVLMConfig.from_directory`.
    """
    config, source = open_checkpoint(path)
    with torch.device("meta"):
        model = MobileVLM(config)
    for key in expected_shapes(config):
        module_name, _, name = key.rpartition(".")
        tensor = source.tensor(key)
        parameter = torch.nn.Parameter(tensor if dtype is None else tensor.to(dtype))
        setattr(model.get_submodule(module_name), name, parameter)
    model.tie_weights()
    return model.eval()


def save(model: MobileVLM, config: MobileVLMConfig, tokenizer_file: str | Path, path: str | Path) -> None:
    """Writes a checkpoint directory (safetensors) that carries its own tower, so it needs no CLIP directory.

    The directory appears only when complete; an older one at `path` is replaced.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shapes = expected_shapes(config)
    state = {
        key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items() if key in shapes
    }
    description = {
        **config.to_json_dict(),
        "vision_config": None,
        "torch_dtype": str(model.dtype).removeprefix("torch."),
    }
    description["vision_config"] = vars(config.vision)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        work.chmod(0o755)
        save_file(state, work / "model.safetensors", metadata={"format": "pt"})
        shutil.copyfile(tokenizer_file, work / "tokenizer.model")
        (work / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            old = work / "old"
            os.replace(target, old)
        os.replace(work, target)
        shutil.rmtree(target / "old", ignore_errors=True)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
