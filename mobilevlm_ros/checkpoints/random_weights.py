# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with random weights in the geometry of the published ones, for tests and benchmarks."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mobilevlm_ros.checkpoints.checkpoint import expected_shapes
from mobilevlm_ros.checkpoints.output import CHECKPOINT, METADATA, writing_tensors
from mobilevlm_ros.errors import CheckpointOutputError
from mobilevlm_ros.files.atomic_directory import new_directory
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.vision_config import VisionConfig
from mobilevlm_ros.processing.tokenizer import TOKENIZER

_SHARD_BYTES = 512 << 20
_CLIP = "openai/clip-vit-large-patch14-336"
_LLAMA_1_4B = LanguageConfig()
_LLAMA_2_7B = LanguageConfig(
    hidden_size=2560,
    intermediate_size=6912,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
)
_LLAMA_7B = LanguageConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    rms_norm_eps=1e-5,
    max_position_embeddings=4096,
)


def _published(language: LanguageConfig, projector: str) -> MobileVLMConfig:
    return MobileVLMConfig(language=language, projector_type=projector, vision_tower=_CLIP, own_vision=False)


CONFIGS: dict[str, MobileVLMConfig] = {
    "MobileVLM-1.7B": _published(_LLAMA_1_4B, "ldpnet"),
    "MobileVLM-3B": _published(_LLAMA_2_7B, "ldpnet"),
    "MobileVLM_V2-1.7B": _published(_LLAMA_1_4B, "ldpnetv2"),
    "MobileVLM_V2-3B": _published(_LLAMA_2_7B, "ldpnetv2"),
    "MobileVLM_V2-7B": _published(_LLAMA_7B, "ldpnetv2"),
    "tiny": MobileVLMConfig(
        vision=VisionConfig(
            hidden_size=32,
            image_size=48,
            patch_size=4,
            intermediate_size=64,
            num_attention_heads=2,
            num_hidden_layers=3,
        ),
        language=LanguageConfig(
            vocab_size=704,  # that of nano's tokenizer
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
        ),
        projector_type="ldpnetv2",
    ),
}
"""The published models, and one for tests that builds in a second."""


def write_random_checkpoint(
    config: MobileVLMConfig,
    path: Path,
    tokenizer_file: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> None:
    """Writes a checkpoint directory of sharded safetensors, one shard in memory at a time.

    The same seed gives the same weights. `progress` gets parameters done, parameters in all, and a tensor's
    name. The directory appears only when it is complete; `overwrite` replaces a checkpoint that is already
    there, unless other files lie in it. Raises CheckpointError when `path` may not be replaced or cannot be
    written.
    """
    if config.vision != VisionConfig():  # no CLIP directory will lie beside it to tell the tower's geometry
        config = replace(config, own_vision=True)
    if path.exists() and not overwrite:
        raise CheckpointOutputError(f"{path} already exists; choose another directory, or use --overwrite")
    with new_directory(path, CHECKPOINT, overwrite=overwrite) as work, writing_tensors(path):
        _write_shards(config, work, seed, dtype, progress)
        description = {**config.to_json_dict(), "torch_dtype": str(dtype).removeprefix("torch.")}
        (work / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(tokenizer_file, work / TOKENIZER)


def _write_shards(
    config: MobileVLMConfig,
    work: Path,
    seed: int,
    dtype: torch.dtype,
    progress: Callable[[int, int, str], None],
) -> None:
    shapes = expected_shapes(config)
    total, done = sum(map(math.prod, shapes.values())), 0
    generator = torch.Generator().manual_seed(seed)
    shard: dict[str, Tensor] = {}
    shards: list[list[str]] = []
    last = list(shapes)[-1]
    for name, shape in shapes.items():
        shard[name] = _random(name, shape, generator).to(dtype)
        done += math.prod(shape)
        progress(done, total, name)
        if name == last or sum(tensor.nbytes for tensor in shard.values()) >= _SHARD_BYTES:
            part = work / f"{len(shards)}.part"
            save_file(shard, part, metadata=METADATA)
            shards.append(list(shard))
            shard = {}
    where: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (work / f"{i}.part").rename(work / file)
        where.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total * dtype.itemsize}, "weight_map": where}
    (work / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Weights as before training: normal with LLaMA's and CLIP's deviation, norms 1, biases 0."""
    if name.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1 and not name.endswith("class_embedding"):
        return torch.ones(shape)
    # A depthwise kernel sees 9 inputs; 0.02 would silence it.
    deviation = 1 / 3 if len(shape) == 4 and shape[1] == 1 else 0.02
    return torch.empty(shape).normal_(0.0, deviation, generator=generator)
