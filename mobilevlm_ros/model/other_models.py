# SPDX-License-Identifier: Apache-2.0
"""Directories and config.json files of another model: which one, and what to do."""

from __future__ import annotations

from pathlib import Path

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.json_fields import Json, require, short

_GIVE = "give a MobileVLM checkpoint, for example mtgv/MobileVLM_V2-1.7B"


ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "non_lora_trainables.bin",
)
"""What PEFT and LLaVA's trainer write for LoRA. Beside a model's weights they mean another model."""


def check_adapters(directory: Path) -> None:
    """Raises CheckpointError when a LoRA adapter lies in a checkpoint's directory."""
    adapters = next((name for name in ADAPTER_FILES if (directory / name).is_file()), None)
    require(
        adapters is None,
        f"{directory} holds a LoRA adapter ({adapters}), which changes the model and would be left out; "
        f"merge it first (mobilevlm merge {directory} -o CHECKPOINT; or build --base), or move it away",
    )


def check_kind(data: Json, source: str) -> None:
    """Raises CheckpointError unless the config.json `source` is of a MobileVLM with weights as trained."""
    if "mm_projector_type" not in data and "mm_vision_tower" not in data:
        raise CheckpointError(f"{source} describes {_other_model(data)}")
    quantised = data.get("quantization_config")
    method = quantised.get("quant_method", "") if isinstance(quantised, dict) else quantised
    require(
        not quantised,
        f"{source} says that the weights are quantised already ({short(method)}); give the checkpoint in 16 "
        "or 32 bits, `mobilevlm build` quantises it itself",
    )


def check_head_size(data: Json, source: str) -> None:
    """Raises CheckpointError when the heads have another size than LLaMA's: hidden_size / heads."""
    size, heads, width = (data.get(key) for key in ("head_dim", "num_attention_heads", "hidden_size"))
    same = size is None or not isinstance(size, int) or not isinstance(heads, int) or size * heads == width
    require(
        same,
        f"{source}: head_dim is {short(size)}, but {short(heads)} heads share {short(width)} channels; it is "
        "no MobileLLaMA",
    )


def _other_model(data: Json) -> str:
    kind = short(data.get("model_type", "unknown"))
    if kind.startswith("clip") or "siglip" in kind:
        return f"an image encoder alone ({kind}); {_GIVE}"
    if kind.startswith(("llava", "vipllava")):
        return (
            f"a LLaVA in transformers' layout ({kind}, as llava-hf publishes it), which is another model; "
            f"{_GIVE}, or a LLaVA in its original layout (config.json with mm_projector_type)"
        )
    if any(key in data for key in ("vision_config", "text_config", "visual", "vision_tower")):
        return f"another vision-language model ({kind}); {_GIVE}"
    return f"a language model without vision ({kind}, like MobileLLaMA); {_GIVE}"
