# SPDX-License-Identifier: Apache-2.0
"""GGUF files for llama.cpp: the language model, and the tower with its projector ("mmproj").

Tensor names, metadata keys and the rotary permutation are llama.cpp's; its quirks are noted where they show.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor

from mobilevlm_ros.engine.bundle import TOKENIZER
from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.model.checkpoint import TensorSource, open_checkpoint
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.processing.image import IMAGE_MEAN, IMAGE_STD

TYPES: dict[str, tuple[Type, gguf.LlamaFileType]] = {
    "f32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Type.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
"""How the language model's matrices can be stored."""

GRID = 24
"""Patches per side that llama.cpp's ldpnet graphs are written for (336 / 14)."""

_TOWER = "model.vision_tower.vision_tower.vision_model."
_Read = Callable[[], NDArray[np.float32]]
_Tensor = tuple[str, tuple[int, ...], Type, _Read]
"""Name, shape, stored type, and how to read it, in f32."""


def export_gguf(
    checkpoint_dir: str | Path,
    out_dir: str | Path,
    *,
    type_name: str = "f16",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Path]:
    """Writes `NAME-TYPE.gguf` and `mmproj-NAME-f16.gguf` into `out_dir` and returns their paths.

    `type_name` is one of TYPES; with q4_0 the embedding table and the head are q8_0. One tensor is in memory
    at a time; each file appears only when complete. `progress` gets tensors done, tensors in all, and a
    tensor's name.
    Raises CheckpointError for a checkpoint that cannot be used or that llama.cpp could not run.
    """
    checkpoint, out = Path(checkpoint_dir), Path(out_dir)
    config, source = open_checkpoint(checkpoint)
    _check(config)
    name = checkpoint.resolve().name
    stored, file_type = TYPES[type_name]
    language = list(_language_tensors(config.language, source, stored))
    vision = list(_vision_tensors(config, source))
    total = len(language) + len(vision)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}-{type_name}.gguf", out / f"mmproj-{name}-f16.gguf"]
    with _writer(paths[0], "llama") as writer:
        _describe_language(writer, config.language, name, file_type)
        _describe_tokenizer(writer, checkpoint / TOKENIZER, config.language.vocab_size)
        _write(writer, language, lambda done, what: progress(done, total, what))
    with _writer(paths[1], "clip") as writer:
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
def _writer(path: Path, architecture: str) -> Iterator[gguf.GGUFWriter]:
    """A writer whose file replaces `path` at the end, and vanishes on an error."""
    part = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(part, architecture)
    try:
        yield writer
        writer.close()
        os.replace(part, path)
    finally:
        writer.close()
        part.unlink(missing_ok=True)


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
    def tensor(name: str, key: str, kind: Type, heads: int = 0) -> _Tensor:
        shape = source.shape(key)
        if len(shape) == 2 and kind not in (Type.F32, Type.F16) and shape[1] % 32:
            kind = Type.F16  # the quantised types come in blocks of 32

        def read() -> NDArray[np.float32]:
            array: NDArray[np.float32] = source.tensor(key).float().numpy()
            return _interleave(array, heads) if heads else array

        return f"{name}.weight", shape, kind if len(shape) == 2 else Type.F32, read

    # The table and the head decide the answer's words: they keep 8 bits.
    outer = Type.Q8_0 if stored == Type.Q4_0 else stored
    yield tensor("token_embd", "model.embed_tokens.weight", outer)
    for i in range(config.num_hidden_layers):
        old, new = f"model.layers.{i}", f"blk.{i}"
        yield tensor(f"{new}.attn_norm", f"{old}.input_layernorm.weight", stored)
        yield tensor(f"{new}.attn_q", f"{old}.self_attn.q_proj.weight", stored, config.num_attention_heads)
        yield tensor(f"{new}.attn_k", f"{old}.self_attn.k_proj.weight", stored, config.num_key_value_heads)
        yield tensor(f"{new}.attn_v", f"{old}.self_attn.v_proj.weight", stored)
        yield tensor(f"{new}.attn_output", f"{old}.self_attn.o_proj.weight", stored)
        yield tensor(f"{new}.ffn_norm", f"{old}.post_attention_layernorm.weight", stored)
        for part in ("gate", "up", "down"):
            yield tensor(f"{new}.ffn_{part}", f"{old}.mlp.{part}_proj.weight", stored)
    yield tensor("output_norm", "model.norm.weight", stored)
    if not config.tie_word_embeddings:
        yield tensor("output", "lm_head.weight", outer)


def _interleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """From rotating a head's halves (checkpoints) to neighbours (llama.cpp): rows of [heads * D, K]."""
    half = len(weight) // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def _vision_tensors(config: MobileVLMConfig, source: TensorSource) -> Iterator[_Tensor]:
    def tensor(name: str, key: str, shape: tuple[int, ...] | None = None) -> _Tensor:
        shape = shape or source.shape(key)
        kind = Type.F16 if len(shape) > 1 and "position" not in name else Type.F32
        return name, shape, kind, lambda: source.tensor(key).float().numpy()

    yield tensor("v.class_embd", f"{_TOWER}embeddings.class_embedding")
    yield tensor("v.patch_embd.weight", f"{_TOWER}embeddings.patch_embedding.weight")
    yield tensor("v.position_embd.weight", f"{_TOWER}embeddings.position_embedding.weight")
    # llama.cpp runs all layers but the last of those it is given, so it gets the unused one too.
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out",
        "layer_norm1": "ln1",
        "layer_norm2": "ln2",
        "mlp.fc1": "ffn_down",  # llama.cpp's CLIP files have always had these two the wrong way round
        "mlp.fc2": "ffn_up",
    }
    for part in ("weight", "bias"):
        yield tensor(f"v.pre_ln.{part}", f"{_TOWER}pre_layrnorm.{part}")
    for i in range(config.vision.num_hidden_layers):
        for old, new in names.items():
            for part in ("weight", "bias"):
                yield tensor(f"v.blk.{i}.{new}.{part}", f"{_TOWER}encoder.layers.{i}.{old}.{part}")
    prefix = "model.mm_projector."
    for key in source.checkpoint.keys():  # noqa: SIM118 (a reader, not a dictionary)
        if key.startswith(prefix):
            shape = source.shape(key)
            # 1 x 1 convolutions are matrices there; depthwise kernels keep their four dimensions.
            shape = shape[:2] if shape[2:] == (1, 1) else shape
            yield tensor(_projector_name(key.removeprefix(prefix)), key, shape)


def _projector_name(key: str) -> str:
    """ldpnet's `model.` is already there; ldpnetv2's `mlp.mlp.` and `peg.peg.` lose their doubling."""
    if key.startswith("model."):
        return f"mm.{key}"
    return f"mm.model.{key.split('.', 1)[1]}"


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
    writer.add_vocab_size(config.vocab_size)


def _describe_tokenizer(writer: gguf.GGUFWriter, path: Path, vocab_size: int) -> None:
    pieces = SentencePieceProcessor(model_file=str(path))
    tokens, scores, types = [], [], []
    for i in range(vocab_size):
        if i >= len(pieces):  # rows that the embedding table has in excess
            tokens.append(f"<unused{i}>")
            scores.append(-1e4)
            types.append(gguf.TokenType.UNUSED)
            continue
        tokens.append(pieces.id_to_piece(i))
        scores.append(pieces.get_score(i))
        types.append(_token_type(pieces, i))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(_CHAT_TEMPLATE)


_CHAT_TEMPLATE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. "
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "USER: {{ message['content'] }} ASSISTANT:{% elif message['role'] == 'assistant' %}"
    " {{ message['content'] }}</s>{% endif %}{% endfor %}"
)
"""processing.prompt's template v1 in Jinja."""


def _token_type(pieces: SentencePieceProcessor, token: int) -> gguf.TokenType:
    if pieces.is_unknown(token):
        return gguf.TokenType.UNKNOWN
    if pieces.is_control(token):
        return gguf.TokenType.CONTROL
    if pieces.is_unused(token):
        return gguf.TokenType.UNUSED
    return gguf.TokenType.BYTE if pieces.is_byte(token) else gguf.TokenType.NORMAL


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
