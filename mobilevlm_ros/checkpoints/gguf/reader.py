# SPDX-License-Identifier: Apache-2.0
"""A MobileVLM out of llama.cpp's two GGUF files, as the checkpoint that they were made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilevlm_ros.checkpoints.checkpoint import expected_shapes
from mobilevlm_ros.checkpoints.gguf.file import LANGUAGE, REQUIRED, VISION, GGUFFile
from mobilevlm_ros.checkpoints.gguf.tensor_names import (
    ASPECT,
    PROJECTORS,
    SELECT_LAYER,
    deinterleave,
    gguf_name,
    rotated_heads,
)
from mobilevlm_ros.checkpoints.weights_check import check_tensor
from mobilevlm_ros.files.json_fields import Json, require, short
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD

RELEASED_LAYERS = 24
"""Layers of every released model's tower; llama.cpp's converter leaves the last one, which is unused, out."""

_PROJECTOR_ADVICE = {
    "peg": ". The authors' own branch of llama.cpp calls LDPv2 so; make the file anew with llama.cpp's "
    "convert_image_encoder_to_gguf.py --projector-type ldpv2, or build from mtgv/MobileVLM_V2-1.7B itself",
    "mlp": ". It is a LLaVA's; build from the LLaVA's original checkpoint",
}
"""By projector type."""

_ENDS = ("eos", "eot", "eom")
"""Of the keys `tokenizer.ggml.*_token_id`, those that llama.cpp ends an answer at."""
_NO_TOKEN = 2**32 - 1
"""What converters write there for none: -1 in 32 bits."""

_ROTARY = ".attn_rot_embd."
"""The rotation's frequencies, which old converters wrote and nothing reads."""


class GGUFTensors:
    """A `model.checkpoint.TensorSource` over the two files: the checkpoint's names, shapes and layout."""

    def __init__(self, language: GGUFFile, vision: GGUFFile, config: MobileVLMConfig) -> None:
        """Raises CheckpointError listing what is missing, of the wrong shape or not a MobileVLM's, and for a
        type that cannot be read.
        """
        self.config = config
        self._files = (language, vision)
        self._shapes = expected_shapes(config)
        self._where: dict[str, tuple[GGUFFile, str]] = {}
        swapped = not _has_old_names(vision, config)
        known = {gguf_name(key) for key in self._shapes}
        # The tower may hold layers that nothing uses; in the language model every tensor plays a part.
        foreign = [name for name in language.tensors if name not in known and _ROTARY not in name]
        missing, misshapen = [], []
        for key, shape in self._shapes.items():
            name = gguf_name(_swap_mlp(key) if swapped else key)
            file = next((file for file in self._files if name in file.tensors), None)
            if file is not None and _squeezed(file.shape(name)) != _squeezed(shape):
                misshapen.append(f"{name} is {list(file.shape(name))}, expected {list(shape)}")
            elif file is not None:
                self._where[key] = file, name
            elif ".post_layernorm." not in key:  # no feature passes through it
                missing.append(name)
        problems = [
            f"{len(names)} {kind}: {', '.join(names[:20])}"
            for kind, names in (("missing", missing), ("misshapen", misshapen), ("foreign", foreign))
            if names
        ]
        require(
            not problems,
            f"{language.path} and {vision.path} do not make a MobileVLM; tensors {'; '.join(problems)}",
        )
        for file, name in self._where.values():
            file.check_type(name)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def shape(self, key: str) -> tuple[int, ...]:
        """Reads no weights."""
        return self._shapes[key]

    def tensor(self, key: str) -> Tensor:
        """In f32. Raises CheckpointError for one that cannot be read."""
        file, name = self._where[key]
        array = file.array(name).reshape(self._shapes[key])
        language = self.config.language
        if heads := rotated_heads(key, language.num_attention_heads, language.num_key_value_heads):
            array = deinterleave(array, heads)
        return check_tensor(torch.from_numpy(np.require(array, requirements=["C", "W"])), name, file.path)

    def release(self) -> None:
        """See `CheckpointReader.release`."""
        for file in self._files:
            file.release()


def read_config(language: GGUFFile, vision: GGUFFile) -> MobileVLMConfig:
    """The configuration that the files' metadata describe. Raises CheckpointError."""
    where = f"{language.path} and {vision.path}"
    kind = vision.field("clip.projector_type", None)
    require(
        isinstance(kind, str) and kind in PROJECTORS,
        f"{vision.path} has projector type {short(kind)!r}; a MobileVLM's is one of {', '.join(PROJECTORS)}"
        + _PROJECTOR_ADVICE.get(str(kind), ""),
    )
    for name, ours in (("image_mean", IMAGE_MEAN), ("image_std", IMAGE_STD)):
        theirs = vision.field(f"clip.vision.{name}", list(ours))
        require(
            isinstance(theirs, list) and len(theirs) == 3 and np.allclose(theirs, ours, atol=1e-3),
            f"{vision.path} normalises pixels by {name} {theirs}; MobileVLM's tower, CLIP, by {list(ours)}",
        )
    tower = _tower(vision)
    data = {
        **_llama(language),
        "mm_projector_type": PROJECTORS[kind],
        "mm_vision_select_layer": _select_layer(vision, tower["num_hidden_layers"]),
        "image_aspect_ratio": vision.field(ASPECT, "pad"),
        "vision_config": tower,
    }
    return MobileVLMConfig.from_json(data, where)


def _llama(file: GGUFFile) -> Json:
    def field(name: str, default: Any = REQUIRED) -> Any:
        return file.field(f"{LANGUAGE}.{name}", default)

    def end_of(name: str) -> object:
        token = file.field(f"tokenizer.ggml.{name}_token_id", None)
        return None if token == _NO_TOKEN else token

    table = "token_embd.weight"
    require(table in file.tensors, f"{file.path} has no embedding table; convert the model again")
    heads, width = field("attention.head_count"), field("embedding_length")
    for name in ("rope.dimension_count", "attention.key_length"):
        size = field(name, None)
        require(
            size is None or not isinstance(heads, int) or size * heads == width,
            f"{file.path}: {name} is {size}, but {heads} heads share {width} channels; no MobileLLaMA",
        )
    layers = _count(file, "blk.{}.attn_norm.weight")
    require(
        field("block_count") == layers,
        f"{file.path} says block_count {field('block_count')}, but holds {layers} layers; copy it again",
    )
    factor = field("rope.scaling.factor", field("rope.scale_linear", 1.0))
    kind = field("rope.scaling.type", "none" if factor == 1.0 else "linear")
    scaling = None if kind == "none" else {"type": kind, "factor": factor}
    length = field("context_length")
    if scaling and kind == "linear" and isinstance(length, int) and factor:
        length = field("rope.scaling.original_context_length", round(length / factor))
    return {
        "vocab_size": file.shape(table)[0],
        "hidden_size": width,
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": field("attention.head_count_kv", heads),
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "rope_theta": field("rope.freq_base", 10000.0),
        "rope_scaling": scaling,
        "max_position_embeddings": length,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "eos_token_id": [end for end in map(end_of, _ENDS) if end is not None] or None,
    }


def _count(file: GGUFFile, pattern: str) -> int:
    """Layers in the file; what its metadata say of the tower's differs between converters."""
    layers = 0
    while pattern.format(layers) in file.tensors:
        layers += 1
    return layers


def _tower(file: GGUFFile) -> dict[str, Any]:
    def field(name: str, default: Any = REQUIRED) -> Any:
        return file.field(f"{VISION}.vision.{name}", default)

    return {
        "hidden_size": field("embedding_length"),
        "image_size": field("image_size"),
        "patch_size": field("patch_size"),
        "intermediate_size": field("feed_forward_length"),
        "num_attention_heads": field("attention.head_count"),
        "num_hidden_layers": _count(file, "v.blk.{}.ln1.weight"),
        "layer_norm_eps": field("attention.layer_norm_epsilon"),
        "hidden_act": "gelu" if file.field("clip.use_gelu", False) else "quick_gelu",
    }


def _select_layer(file: GGUFFile, layers: int) -> object:
    """Which of the file's layers has the features: see RELEASED_LAYERS."""
    stated = file.field("clip.vision.feature_layer", None)
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]  # counts hidden states from the embeddings on, like mm_vision_select_layer
    if stated is None:
        stated = -2 if layers == RELEASED_LAYERS else -1
    return file.field(SELECT_LAYER, stated)


def _has_old_names(file: GGUFFile, config: MobileVLMConfig) -> bool:
    """Whether the tower's first matrix is called ffn_down, as llama.cpp's converter does for CLIP."""
    name = "v.blk.0.ffn_down.weight"
    return name not in file.tensors or file.shape(name)[0] == config.vision.intermediate_size


def _swap_mlp(key: str) -> str:
    for ours, other in ((".mlp.fc1.", ".mlp.fc2."), (".mlp.fc2.", ".mlp.fc1.")):
        if ours in key:
            return key.replace(ours, other)
    return key


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)  # what llama.cpp's converter stores
