# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (LoRA) through peft, in the official layout.

adapter_model.bin         the adapters: base_model.model.<module>.lora_A.weight, .lora_B.weight
adapter_config.json       rank, scale, targets, and the base they belong to
non_lora_trainables.bin   the projector, which is trained whole
config.json               of the model they make with their base
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mobilevlm_ros.checkpoints.output import write_torch_file
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.json_fields import write_json
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.training.recipe import LoraSettings
from mobilevlm_ros.training.start import PROJECTOR_PREFIX

if TYPE_CHECKING:  # importing peft takes seconds, which only runs with adapters should wait for
    from peft import LoraModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.bin", "adapter_model.safetensors")
PROJECTOR_FILE = "non_lora_trainables.bin"
PREFIX = "base_model.model."
"""What peft puts before the names of the model it wraps."""

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Suffixes alone would also find the tower's q_proj, k_proj and v_proj.
_TARGET_PATHS = r"model\.layers\.\d+\.(self_attn|mlp)\.(" + "|".join(TARGETS) + ")"


def add_adapters(model: nn.Module, settings: LoraSettings, seed: int) -> None:
    """Puts fresh adapters (which change nothing yet) into the language model: a MobileVLM's, or one alone.
    They train, and the projector where there is one."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=_whole(settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=_TARGET_PATHS,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or name.startswith(PROJECTOR_PREFIX))


def save_adapters(
    tensors: dict[str, Tensor], settings: LoraSettings, config: dict[str, Any], base: str, path: Path
) -> None:
    """Writes the four files into the directory `path`, over those of an earlier try.

    `tensors`: the trained ones, by their names in the model; `config`: the config.json of the model. Raises
    OutputError.
    """
    from peft import LoraConfig

    adapters = {
        PREFIX + name.replace(".default.", "."): value for name, value in tensors.items() if ".lora_" in name
    }
    projector = {PREFIX + n: value for n, value in tensors.items() if n.startswith(PROJECTOR_PREFIX)}
    write_torch_file(adapters, path / ADAPTER_FILES[0])
    write_torch_file(projector, path / PROJECTOR_FILE)
    description = LoraConfig(
        r=settings.r,
        lora_alpha=_whole(settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=list(TARGETS),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    ).to_dict()  # type: ignore[no-untyped-call]
    description["target_modules"] = sorted(description["target_modules"])
    write_json(path / ADAPTER_CONFIG, description, overwrite=True)
    write_json(path / "config.json", config, overwrite=True)


def is_adapter(path: Path) -> bool:
    """Whether a directory holds adapters rather than a model."""
    return (path / ADAPTER_CONFIG).is_file()


def read_adapters(path: Path) -> dict[str, Tensor]:
    """The adapters' tensors by their names in the file. Raises CheckpointError."""
    file = next((path / name for name in ADAPTER_FILES if (path / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{path} holds no adapters; expected {' or '.join(ADAPTER_FILES)}")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # an unpickler that reads nonsense can raise anything
        raise CheckpointError(
            f"{file} is damaged, or holds more than weights: nothing in it was executed"
        ) from error


def load_adapters(model: MobileVLM, path: Path) -> LoraModel:
    """Puts the adapters of a directory, ours or the official code's, into `model`, and its projector over the
    model's. Returns peft's tuner, which can merge them. Raises CheckpointError when they do not fit."""
    from peft import LoraConfig, LoraModel

    tensors = read_adapters(path)
    modules = sorted(
        {m[1] for name in tensors if (m := re.fullmatch(r"base_model\.model\.(.*)\.lora_A\.weight", name))}
    )
    known = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    strangers = [name for name in modules if name not in known]
    if strangers or not modules:
        raise CheckpointError(
            f"{path}: the adapters belong to another model"
            + (f"; this one has no {strangers[0]}" if strangers else "; none is of a known form")
        )
    config = LoraConfig.from_pretrained(str(path))
    config.target_modules = set(modules)
    tuner = LoraModel(model, {"default": config}, "default")
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in tensors.items():
            target = own.get(
                re.sub(r"\.(lora_[AB])\.weight$", r".\1.default.weight", name.removeprefix(PREFIX))
            )
            if target is None or target.shape != value.shape:
                shape = (
                    "unknown here"
                    if target is None
                    else f"{list(value.shape)}, expected {list(target.shape)}"
                )
                raise CheckpointError(f"{path}: {name} is {shape}; the adapters belong to another base")
            target.copy_(value)
    return tuner


def _whole(number: float) -> int:
    return int(number) if number == int(number) else number  # type: ignore[return-value]  # as peft's files have it
