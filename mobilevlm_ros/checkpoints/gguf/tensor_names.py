# SPDX-License-Identifier: Apache-2.0
"""What llama.cpp calls the tensors of a MobileVLM, and how it lays out those that it rotates."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.checkpoints.checkpoint import TOWER_PREFIX

PROJECTORS = {"ldp": "ldpnet", "ldpv2": "ldpnetv2"}
"""`clip.projector_type` to mm_projector_type."""

SELECT_LAYER = "mobilevlm.vision_select_layer"
ASPECT = "mobilevlm.image_aspect_ratio"
"""A metadata key of ours: mm_vision_select_layer, counted among the tower's layers that are in the file."""

_TOWER = f"{TOWER_PREFIX}vision_model."
_PROJECTOR = "model.mm_projector."
_SINGLE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    f"{_TOWER}embeddings.patch_embedding": "v.patch_embd",
    f"{_TOWER}embeddings.position_embedding": "v.position_embd",
    f"{_TOWER}pre_layrnorm": "v.pre_ln",
    f"{_TOWER}post_layernorm": "v.post_ln",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOWER_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_down",  # llama.cpp's CLIP files have always had these two the wrong way round
    "mlp.fc2": "ffn_up",
}
_BLOCKS = (
    (re.compile(r"model\.layers\.(\d+)\.(.+)"), "blk", _LAYER),
    (re.compile(re.escape(_TOWER) + r"encoder\.layers\.(\d+)\.(.+)"), "v.blk", _TOWER_LAYER),
)


def gguf_name(key: str) -> str:
    """llama.cpp's name of a checkpoint's tensor. Raises KeyError for one that it does not have."""
    if key == f"{_TOWER}embeddings.class_embedding":
        return "v.class_embd"
    if key.startswith(_PROJECTOR):
        name = key.removeprefix(_PROJECTOR)
        # ldpnet's `model.` is already there; ldpnetv2's `mlp.mlp.` and `peg.peg.` lose their doubling.
        return f"mm.{name}" if name.startswith("model.") else f"mm.model.{name.split('.', 1)[1]}"
    module, _, part = key.rpartition(".")
    for pattern, prefix, names in _BLOCKS:
        if match := pattern.fullmatch(module):
            return f"{prefix}.{match[1]}.{names[match[2]]}.{part}"
    return f"{_SINGLE[module]}.{part}"


def interleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """From rotating a head's halves (checkpoints) to neighbours (llama.cpp): rows of [heads * D, K]."""
    half = len(weight) // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def deinterleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """The inverse of `interleave`."""
    half = len(weight) // heads // 2
    return weight.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def rotated_heads(key: str, heads: int, key_value_heads: int) -> int:
    """Heads whose rows llama.cpp keeps interleaved in a checkpoint's tensor; 0 for all but q and k."""
    if not key.startswith("model.layers."):
        return 0
    if key.endswith(".q_proj.weight"):
        return heads
    return key_value_heads if key.endswith(".k_proj.weight") else 0
