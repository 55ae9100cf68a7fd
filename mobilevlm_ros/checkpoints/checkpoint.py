# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories: checked before use, loaded tensor by tensor, written whole or not at all."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mobilevlm_ros.checkpoints.content_hash import check_content
from mobilevlm_ros.checkpoints.other_layouts import describe_tensors
from mobilevlm_ros.checkpoints.output import CHECKPOINT, METADATA, is_ours, writing_tensors
from mobilevlm_ros.checkpoints.tensor_reader import LAYOUTS, CheckpointReader
from mobilevlm_ros.checkpoints.weights_check import check_tensor
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.atomic_directory import new_directory
from mobilevlm_ros.files.hub_cache import find_clip_directory
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.tokenizer import TOKENIZER

logger = logging.getLogger(__name__)

TOWER_PREFIX = "model.vision_tower.vision_tower."
"""What a checkpoint puts before the names that the same tensors have in a CLIP directory."""

_DESCRIPTIONS = ("config.json", "generation_config.json", TOKENIZER)
"""Files beside the weights that decide what the model says."""

_MANY_LAYERS = 200  # whose missing tensors can be listed

# Constants that some versions of transformers stored as if they were weights.
_IGNORED = re.compile(r"\.rotary_emb\.inv_freq$|\.embeddings\.position_ids$")
# Stored, but no feature passes through it; some re-saved checkpoints leave it out.
_OPTIONAL = re.compile(r"\.post_layernorm\.(weight|bias)$")


class TensorSource:
    """Every tensor that inference needs, by its name in `MobileVLM.state_dict()`.

    The tower comes from where the official loader takes it: from the checkpoint for V2 and for those that
    describe their own tower; for V1 from the CLIP directory, or from the checkpoint when that is not at hand.
    """

    def __init__(self, path: str | Path, config: MobileVLMConfig) -> None:
        """Raises CheckpointError when there are no readable weights."""
        self.config = config
        self.checkpoint = CheckpointReader(path)
        self.clip = None if config.uses_stored_tower else _open_clip(Path(path), config)

    def check(self, expected: dict[str, tuple[int, ...]]) -> None:
        """Raises CheckpointError, listing every tensor that is missing, unexpected or of the wrong shape."""
        stored = [key for key in self.checkpoint.keys() if not _IGNORED.search(key)]  # noqa: SIM118
        self._check_index()
        if told := describe_tensors(stored):
            raise CheckpointError(f"{self.checkpoint.path} is no MobileVLM checkpoint: {told}")
        if not any(".mm_projector." in key for key in stored):
            apart = next(self.checkpoint.path.glob("mm_projector*.bin"), None)
            raise CheckpointError(
                f"{self.checkpoint.path} has no projector: "
                + (
                    f"it lies apart in {apart.name}; merge it into the model's weights first"
                    if apart is not None
                    else "it is a bare language model such as MobileLLaMA; give a MobileVLM checkpoint, for "
                    "example mtgv/MobileVLM_V2-1.7B"
                )
            )
        found = [key for key in expected if key in self]
        missing = [key for key in expected if key not in self and not _OPTIONAL.search(key)]
        tied = {"lm_head.weight"} if self.config.language.tie_word_embeddings else set()
        unexpected = sorted(set(stored) - set(expected) - tied)
        misshapen = [
            f"{key} is {list(self.shape(key))}, expected {list(expected[key])}"
            for key in found
            if self.shape(key) != expected[key]
        ]
        problems = [
            f"{len(names)} {kind}: {_listed(names)}"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
            if names
        ]
        if problems:
            path = self.checkpoint.path
            raise CheckpointError(f"{path} does not fit its config.json; tensors " + "; ".join(problems))

    def _check_index(self) -> None:
        """Raises CheckpointError when the index is of another save than the shards."""
        unlisted = {key: file for key, file in self.checkpoint.unlisted().items() if not _IGNORED.search(key)}
        if unlisted:
            key, file = next(iter(unlisted.items()))
            raise CheckpointError(
                f"{self.checkpoint.path}: the index is of another save than the shards, as it lacks "
                f"{len(unlisted)} of their tensors, such as {key} of {file}; copy the index that belongs to "
                "them, or save the model again"
            )

    def check_layers(self) -> None:
        """Raises CheckpointError when config.json tells of many more layers than there are tensors: to
        describe them would take all memory."""
        readers = [reader for reader in (self.checkpoint, self.clip) if reader is not None]
        stored = sum(len(reader.keys()) for reader in readers)
        told = self.config.language.num_hidden_layers + self.config.vision.num_hidden_layers
        if told > max(_MANY_LAYERS, stored):
            raise CheckpointError(
                f"{self.checkpoint.path}: config.json tells of {told} layers, but only {stored} tensors are "
                "stored; it is another model's config.json, or damaged"
            )

    def __contains__(self, key: str) -> bool:
        reader, name = self._locate(key)
        return name in reader

    def shape(self, key: str) -> tuple[int, ...]:
        """Reads no weights. Raises CheckpointError for an unknown key."""
        reader, name = self._locate(key)
        return reader.shape(name)

    def tensor(self, key: str) -> Tensor:
        """In the stored dtype; a missing `post_layernorm` is the identity. Raises CheckpointError, for what
        `check_tensor` refuses too."""
        reader, name = self._locate(key)
        if name not in reader and _OPTIONAL.search(key):
            size = self.config.vision.hidden_size
            return torch.ones(size) if key.endswith("weight") else torch.zeros(size)
        tensor = reader.tensor(name)
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{reader.path}: {name} is {tensor.dtype}; quantised checkpoints cannot be read"
            )
        return check_tensor(tensor, name, reader.path)

    def release(self) -> None:
        """See `CheckpointReader.release`; worth a call after each layer of a large model."""
        for reader in (self.checkpoint, self.clip):
            if reader is not None:
                reader.release()

    def _locate(self, key: str) -> tuple[CheckpointReader, str]:
        if self.clip is not None and key.startswith(TOWER_PREFIX):
            return self.clip, key.removeprefix(TOWER_PREFIX)
        return self.checkpoint, key


def _open_clip(path: Path, config: MobileVLMConfig) -> CheckpointReader | None:
    directory = find_clip_directory(path, config.vision_tower)
    if directory is not None and any((directory / name).is_file() for name in LAYOUTS):
        return CheckpointReader(directory)
    logger.warning(
        "%s: %r is not on this machine, so the checkpoint's own tower is used; the official code takes"
        " the CLIP directory's for %s",
        path,
        config.vision_tower,
        config.projector_type,
    )
    return None


def _listed(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def expected_shapes(config: MobileVLMConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint with this configuration stores."""
    with torch.device("meta"):
        state = MobileVLM(config).state_dict()
    if config.language.tie_word_embeddings:
        del state["lm_head.weight"]
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def open_checkpoint(path: str | Path) -> tuple[MobileVLMConfig, TensorSource]:
    """Configuration and checked tensors of a checkpoint; no weights are read yet. Raises CheckpointError."""
    for name in _DESCRIPTIONS:
        if (Path(path) / name).is_file():
            check_content(Path(path) / name)
    config = MobileVLMConfig.from_directory(path)
    source = TensorSource(path, config)
    source.check_layers()
    source.check(expected_shapes(config))
    return config, source


def load(path: str | Path, dtype: torch.dtype | None = torch.float32) -> MobileVLM:
    """The model of a checkpoint directory, in evaluation mode on the CPU; `dtype` None keeps what is stored.
    The weights are copies: a file that changes later does not change the model.

    Raises CheckpointError: see `MobileVLMConfig.from_directory` and `TensorSource.check`.
    """
    config, source = open_checkpoint(path)
    with torch.device("meta"):
        model = MobileVLM(config)
    for key in expected_shapes(config):
        tensor = source.tensor(key)
        owner, _, name = key.rpartition(".")
        setattr(model.get_submodule(owner), name, nn.Parameter(tensor.to(dtype or tensor.dtype, copy=True)))
    model.tie_weights()
    return model.eval()


def save(
    model: MobileVLM,
    config: MobileVLMConfig,
    tokenizer_file: str | Path,
    path: str | Path,
    *,
    overwrite: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a checkpoint directory that describes the tower it carries, so it needs no CLIP directory.

    The directory appears only when it is complete. One that this package has written is replaced, another
    checkpoint only with `overwrite`, and neither when other files lie in it. `more` are files to put beside,
    such as the recipe. Raises CheckpointError.
    """
    shapes = expected_shapes(config)
    state = {
        key: value.detach().cpu().contiguous() for key, value in model.state_dict().items() if key in shapes
    }
    description = {**config.to_json_dict(), "torch_dtype": str(model.dtype).removeprefix("torch.")}
    description["vision_config"] = vars(config.vision)
    path = Path(path)
    with new_directory(path, CHECKPOINT, overwrite=overwrite or is_ours(path)) as work, writing_tensors(path):
        save_file(state, work / "model.safetensors", metadata=METADATA)
        shutil.copyfile(tokenizer_file, work / TOKENIZER)
        (work / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        for name, content in (more or {}).items():
            (work / name).write_bytes(content)
