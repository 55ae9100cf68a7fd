# SPDX-License-Identifier: Apache-2.0
"""LLaMA's SentencePiece tokenizer as GGUF metadata, and back."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType
from sentencepiece import SentencePieceProcessor

from mobilevlm_ros.errors import CheckpointError

# SentencePiece's ModelProto (sentencepiece_model.proto): the numbers of the fields that matter here. Written
# by hand because the generated module asks for a protobuf that others of our packages may not go with.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK = 3, 4, 35
_UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 40, 41, 42, 43
_NAME, _CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES = 1, 2, 3, 4
_BPE = 2


def describe_tokenizer(writer: gguf.GGUFWriter, path: Path, vocab_size: int) -> None:
    """Writes the metadata of a `tokenizer.model`, padded to the embedding table's `vocab_size` rows."""
    pieces = SentencePieceProcessor(model_file=str(path))
    tokens, scores, types = [], [], []
    for i in range(vocab_size):
        if i >= len(pieces):  # rows that the embedding table has in excess
            tokens.append(f"<unused{i}>")
            scores.append(-1e4)
            types.append(TokenType.UNUSED)
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


def _token_type(pieces: SentencePieceProcessor, token: int) -> TokenType:
    if pieces.is_unknown(token):
        return TokenType.UNKNOWN
    if pieces.is_control(token):
        return TokenType.CONTROL
    if pieces.is_unused(token):
        return TokenType.UNUSED
    return TokenType.BYTE if pieces.is_byte(token) else TokenType.NORMAL


def rebuild_tokenizer(field: Callable[[str, Any], Any], where: Path) -> bytes:
    """A `tokenizer.model` from GGUF metadata; `field` gives a key's value, or the default.

    The padding of `describe_tokenizer` and of llama.cpp's converter is left out again. Raises CheckpointError
    for another kind of tokenizer, or a damaged one.
    """
    if (kind := field("tokenizer.ggml.model", None)) != "llama":
        raise CheckpointError(
            f"{where} has a tokenizer of type {kind!r}; a MobileLLaMA has LLaMA's SentencePiece ('llama')"
        )
    tokens, scores, types = (
        field(f"tokenizer.ggml.{name}", None) for name in ("tokens", "scores", "token_type")
    )
    if not all(isinstance(values, list) and values for values in (tokens, scores, types)) or not (
        len(tokens) == len(scores) == len(types)
    ):
        raise CheckpointError(f"{where} lacks tokens, their scores or their types; convert the model again")
    kept = len(tokens)
    while kept and types[kept - 1] == TokenType.UNUSED:
        kept -= 1
    ids = [field(f"tokenizer.ggml.{name}_token_id", default) for name, default in _SPECIAL]
    try:
        content = b"".join(_model(zip(tokens[:kept], scores, types), kept, ids, field))
        SentencePieceProcessor(model_proto=content)
    except (RuntimeError, ValueError, TypeError, OverflowError, struct.error, AttributeError) as error:
        raise CheckpointError(f"{where} has a damaged tokenizer: {error}; convert the model again") from error
    return content


_SPECIAL = (("unknown", 0), ("bos", 1), ("eos", 2))  # LLaMA's


def _model(
    pieces: Iterator[tuple[str, float, int]], count: int, special: list[int], field: Callable[[str, Any], Any]
) -> Iterator[bytes]:
    for piece, score, kind in pieces:
        entry = _text(_PIECE, piece.encode()) + _float(_SCORE, score) + _number(_TYPE, kind)
        yield _text(_PIECES, entry)
    unk, bos, eos = special
    yield _text(
        _TRAINER,
        _number(_MODEL_TYPE, _BPE)
        + _number(_VOCAB_SIZE, count)
        + _number(_BYTE_FALLBACK, 1)
        + _number(_UNK_ID, unk)
        + _number(_BOS_ID, bos)
        + _number(_EOS_ID, eos)
        + _number(_PAD_ID, -1),
    )
    yield _text(
        _NORMALIZER,
        _text(_NAME, b"identity")
        + _text(_CHARSMAP, b"")
        + _number(_DUMMY_PREFIX, bool(field("tokenizer.ggml.add_space_prefix", True)))
        + _number(_REMOVE_SPACES, bool(field("tokenizer.ggml.remove_extra_whitespaces", False))),
    )


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(int(value))


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _text(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
