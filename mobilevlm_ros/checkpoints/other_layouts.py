# SPDX-License-Identifier: Apache-2.0
"""What a directory or its tensors are, when they are no MobileVLM checkpoint, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_GIVE = "give a MobileVLM checkpoint, for example mtgv/MobileVLM_V2-1.7B"

_FILES = (
    ("*.gguf", "GGUF files; name the language model's file instead of the directory"),
    ("mm_projector*.bin", "only a projector, as LLaVA's first stage saves it; merge it into its base model"),
    ("zero_to_fp32.py", "DeepSpeed's state of a training; run `python zero_to_fp32.py . .` in it first"),
    ("global_step*", "DeepSpeed's state of a training; run its `zero_to_fp32.py` first"),
    ("*.distcp", "PyTorch's distributed state; save the whole model with `save_pretrained` first"),
    ("consolidated.*.pth", "weights in Meta's own layout; convert them with transformers' LLaMA script"),
    ("*.ckpt", "a training's state; save the model with `save_pretrained` first"),
    ("*.pth", "weights in a layout of their own; save them with `save_pretrained` first"),
    ("tf_model.h5", "TensorFlow's weights; convert them with transformers first"),
    ("flax_model.msgpack", "Flax's weights; convert them with transformers first"),
    ("*.npz", "weights in MLX's or NumPy's layout; give the checkpoint that they were made from"),
    ("*.onnx", "ONNX graphs; give the checkpoint that they were made from"),
    ("checkpoint-*", "checkpoints of a training in directories of their own; give one of those"),
    ("model-*.safetensors", "shards without their index; copy model.safetensors.index.json too"),
    ("pytorch_model-*.bin", "shards without their index; copy pytorch_model.bin.index.json too"),
    ("*.safetensors", "safetensors under other names; the file must be called model.safetensors"),
    ("*.bin", "weights under other names; the file must be called pytorch_model.bin"),
)
"""Patterns, most telling first, and what a directory with such files and no weights of ours holds."""

_NAMES = (
    (
        ("language_model.", "multi_modal_projector."),
        "a LLaVA in transformers' layout (llava-hf), which is another model; give a MobileVLM, or a LLaVA in "
        "its original layout (config.json with mm_projector_type)",
    ),
    ((".visual.", "visual."), "another vision-language model; " + _GIVE),
    (
        ("base_model.model.",),
        "a model wrapped by PEFT; merge its LoRA (`merge_and_unload`) and save it again",
    ),
    (("_orig_mod.",), "a model wrapped by torch.compile; save it unwrapped"),
    (("module.",), "a model wrapped for several GPUs; save it unwrapped (`model.module.save_pretrained`)"),
    (("_fsdp_wrapped_module.",), "a model wrapped by FSDP; save it unwrapped"),
    (("vision_model.", "text_model."), "a CLIP, an image encoder alone; " + _GIVE),
)
"""Beginnings of tensors' names, and what a checkpoint with such tensors is."""

_QUANTISED = (
    ".qweight",
    ".qzeros",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".quant_state",
    ".weight_scale",
    ".weight_packed",
)
"""In the names of what GPTQ, AWQ, bitsandbytes and compressed-tensors put in place of weights."""


def describe_files(directory: Path) -> str:
    """What a directory without weights of ours holds, and what to do; empty when nothing in it tells."""
    for pattern, what in _FILES:
        if next(directory.glob(pattern), None) is not None:
            return f"it holds {what}"
    return ""


def describe_tensors(names: Iterable[str]) -> str:
    """What a checkpoint with these tensors is, when it is no MobileVLM; empty when nothing tells."""
    names = list(names)
    if any(any(mark in name for mark in _QUANTISED) for name in names):
        return "it is quantised already; give it in 16 or 32 bits, `mobilevlm build` quantises it itself"
    for beginnings, what in _NAMES:
        if any(name.startswith(beginnings) for name in names):
            return f"it is {what}"
    return ""
