# SPDX-License-Identifier: Apache-2.0
"""GGUF files for llama.cpp: the language model, and the tower with its projector ("mmproj").

Metadata keys are llama.cpp's; its quirks are noted where they show. Tensor names: gguf_names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from mobilevlm_ros.checkpoints.checkpoint import TOWER_PREFIX, TensorSource, expected_shapes, open_checkpoint
from mobilevlm_ros.checkpoints.gguf.tensor_names import (
    ASPECT,
    SELECT_LAYER,
    gguf_name,
    interleave,
    rotated_heads,
)
from mobilevlm_ros.checkpoints.gguf.tokenizer import describe_tokenizer
from mobilevlm_ros.checkpoints.hub import locate
from mobilevlm_ros.errors import CheckpointError, CheckpointOutputError
from mobilevlm_ros.files.atomic import check_file, check_place, make_directory, new_file
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD
from mobilevlm_ros.processing.tokenizer import TOKENIZER

TYPES: dict[str, tuple[Type, gguf.LlamaFileType]] = {
    "f32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Type.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
"""How the language model's matrices can be stored."""

GRID = 24
"""Patches per side that llama.cpp's ldpnet graphs are written for (336 / 14)."""

_Read = Callable[[], NDArray[np.float32]]
_Tensor = tuple[str, tuple[int, ...], Type, _Read]
"""Name, shape, stored type, and how to read it, in f32."""


def export_gguf(
    checkpoint: str | Path,
    out_dir: str | Path,
    *,
    revision: str | None = None,
    type_name: str = "f16",
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Path]:
    """Writes `NAME-TYPE.gguf` and `mmproj-NAME-f16.gguf` into `out_dir` and returns their paths.

    `checkpoint` is a directory, or a hub id of `revision`. `type_name` is one of TYPES; with q4_0 the
    embedding table and the head are q8_0. One tensor is in memory at a time; each file appears only when
    complete, and replaces one that is there only with `overwrite`. `progress` gets tensors done, tensors in
    all, and a tensor's name.
    Raises CheckpointError for a checkpoint that cannot be used or that llama.cpp could not run, and for files
    that may not be replaced or cannot be written.
    """
    directory, out = locate(checkpoint, revision), Path(out_dir)
    config, source = open_checkpoint(directory)
    _check(config)
    name = Path(checkpoint).resolve().name
    stored, file_type = TYPES[type_name]
    language = list(_language_tensors(config.language, source, stored))
    vision = list(_vision_tensors(source))
    total = len(language) + len(vision)
    paths = [out / f"{name}-{type_name}.gguf", out / f"mmproj-{name}-f16.gguf"]
    check_place(paths[0], parents=True, error=CheckpointOutputError)
    make_directory(out, CheckpointOutputError)
    for path in paths:
        check_file(path, overwrite=overwrite, error=CheckpointOutputError)
    with _writer(paths[0], "llama", overwrite) as writer:
        _describe_language(writer, config.language, name, file_type)
        describe_tokenizer(writer, directory / TOKENIZER, config.language.vocab_size)
        writer.add_chat_template(_CHAT_TEMPLATE)
        _write(writer, language, lambda done, what: progress(done, total, what))
    with _writer(paths[1], "clip", overwrite) as writer:
        _describe_vision(writer, config, name)
        _write(writer, vision, lambda done, what: progress(len(language) + done, total, what))
    return paths


def _check(config: MobileVLMConfig) -> None:
    if not config.projector_type.startswith("ldpnet") or config.vision.grid != GRID:
        raise CheckpointError(
            f"llama.cpp runs ldpnet and ldpnetv2 on {GRID} x {GRID} patches; this checkpoint has "
            f"{config.projector_type} on {config.vision.grid} x {config.vision.grid}"
        )
    if config.num_vision_layers != config.vision.num_hidden_layers - 1:
        raise CheckpointError(
            "llama.cpp takes the features before the tower's last layer; this checkpoint selects "
            f"{config.select_layer}"
        )


@contextmanager
def _writer(path: Path, architecture: str, overwrite: bool) -> Iterator[gguf.GGUFWriter]:
    """A writer whose file becomes `path` at the end, and vanishes on an error."""
    with new_file(path, overwrite=overwrite, error=CheckpointOutputError) as part:
        writer = gguf.GGUFWriter(part, architecture)
        try:
            yield writer
        finally:
            writer.close()


def _write(writer: gguf.GGUFWriter, tensors: Sequence[_Tensor], progress: Callable[[int, str], None]) -> None:
    for name, shape, stored, _ in tensors:
        plain = {Type.F32: np.float32, Type.F16: np.float16}.get(stored)
        dtype = np.dtype(plain or np.uint8)
        laid_out = shape if plain else gguf.quant_shape_to_byte_shape(shape, stored)
        size = int(np.prod(laid_out)) * dtype.itemsize
        writer.add_tensor_info(name, laid_out, dtype, size, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, (name, shape, stored, read) in enumerate(tensors, 1):
        writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(read().reshape(shape)), stored))
        progress(done, name)


def _language_tensors(config: LanguageConfig, source: TensorSource, stored: Type) -> Iterator[_Tensor]:
    # The table and the head decide the answer's words: they keep 8 bits.
    outer = Type.Q8_0 if stored == Type.Q4_0 else stored
    for key in expected_shapes(source.config):
        if key.startswith((TOWER_PREFIX, "model.mm_projector.")):
            continue
        shape = source.shape(key)
        kind = outer if key in ("model.embed_tokens.weight", "lm_head.weight") else stored
        if len(shape) == 1:
            kind = Type.F32
        elif kind not in (Type.F32, Type.F16) and shape[1] % 32:
            kind = Type.F16  # the quantised types come in blocks of 32
        heads = rotated_heads(key, config.num_attention_heads, config.num_key_value_heads)
        yield gguf_name(key), shape, kind, partial(_read, source, key, heads)


def _read(source: TensorSource, key: str, heads: int = 0) -> NDArray[np.float32]:
    array: NDArray[np.float32] = source.tensor(key).float().numpy()
    return interleave(array, heads) if heads else array


def _vision_tensors(source: TensorSource) -> Iterator[_Tensor]:
    # llama.cpp runs all layers but the last of those it is given, so it gets the unused one too.
    for key in expected_shapes(source.config):
        if not key.startswith((TOWER_PREFIX, "model.mm_projector.")) or ".post_layernorm." in key:
            continue
        shape = source.shape(key)
        if shape[2:] == (1, 1):  # 1 x 1 convolutions are matrices there; other kernels keep four dimensions
            shape = shape[:2]
        kind = Type.F16 if len(shape) > 1 and "position" not in key else Type.F32
        yield gguf_name(key), shape, kind, partial(_read, source, key)


def _describe_language(
    writer: gguf.GGUFWriter, config: LanguageConfig, name: str, file_type: gguf.LlamaFileType
) -> None:
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_factor != 1.0:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_factor)
        writer.add_rope_scaling_orig_ctx_len(config.max_position_embeddings)
    writer.add_vocab_size(config.vocab_size)


_CHAT_TEMPLATE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. "
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "USER: {{ message['content'] }} ASSISTANT:{% elif message['role'] == 'assistant' %}"
    " {{ message['content'] }}</s>{% endif %}{% endfor %}"
)
"""processing.prompt's template v1 in Jinja."""


def _describe_vision(writer: gguf.GGUFWriter, config: MobileVLMConfig, name: str) -> None:
    vision = config.vision
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_clip_has_vision_encoder(True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_clip_projector_type("ldpv2" if config.projector_type.startswith("ldpnetv2") else "ldp")
    writer.add_vision_use_gelu(vision.hidden_act == "gelu")  # false is quick_gelu
    writer.add_vision_image_size(vision.image_size)
    writer.add_vision_patch_size(vision.patch_size)
    writer.add_vision_embedding_length(vision.hidden_size)
    writer.add_vision_feed_forward_length(vision.intermediate_size)
    writer.add_vision_projection_dim(config.language.hidden_size)
    writer.add_vision_head_count(vision.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(vision.layer_norm_eps)
    writer.add_vision_block_count(vision.num_hidden_layers)
    writer.add_vision_image_mean(IMAGE_MEAN)
    writer.add_vision_image_std(IMAGE_STD)
    # llama.cpp's converter leaves out the tower's last layer, so a number of layers does not tell where its
    # features come from. llama.cpp ignores this key.
    writer.add_int32(SELECT_LAYER, config.select_layer)
    writer.add_string(ASPECT, config.image_aspect_ratio)  # llama.cpp always pads
