# SPDX-License-Identifier: Apache-2.0
"""LLaMA's SentencePiece tokenizer, with the special-token handling its checkpoints were trained with.

This is the "legacy" behaviour: text between special tokens is encoded part by part, and every part gets its
own leading-space marker. Token ids are therefore not those of one `SentencePieceProcessor.encode` call.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.small_file import LFS_ADVICE, LFS_POINTER
from mobilevlm_ros.processing.prompt_template import IMAGE_PLACEHOLDER

TOKENIZER = "tokenizer.model"
"""The tokenizer\'s file, in checkpoints and in bundles."""

IMAGE_TOKEN = -200
"""Stands in a prompt's ids where the image's embeddings go; never a row of the embedding table."""

_SPACE = "\u2581"  # SentencePiece writes a space as this
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """Text to token ids and back. Safe to share between threads: it keeps no state between calls."""

    def __init__(self, model_file: str | Path) -> None:
        """Reads a SentencePiece `tokenizer.model`. Raises CheckpointError when it cannot be used."""
        path = Path(model_file)
        if not path.is_file():
            raise CheckpointError(
                f"tokenizer {path} does not exist; a checkpoint needs its SentencePiece tokenizer.model"
            )
        try:
            self._sp = SentencePieceProcessor(model_file=str(path))
            self._sp.id_to_piece(list(range(self._sp.vocab_size())))
        except (RuntimeError, OSError, UnicodeDecodeError) as error:  # the last where a piece is no UTF-8
            if path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
                raise CheckpointError(f"tokenizer {path} cannot be read: {LFS_ADVICE}") from error
            raise CheckpointError(f"tokenizer {path} is not a SentencePiece model: {error}") from error
        self.bos_id: int = self._sp.bos_id()
        self.eos_id: int = self._sp.eos_id()
        self.unk_id: int = self._sp.unk_id()
        self.vocab_size: int = self._sp.vocab_size()
        if min(self.bos_id, self.eos_id, self.unk_id) < 0:
            raise CheckpointError(
                f"tokenizer {path} lacks one of <s>, </s>, <unk>; MobileVLM needs all three"
            )
        self._special = {self._sp.id_to_piece(i): i for i in (self.unk_id, self.bos_id, self.eos_id)}
        self._bytes = {
            i: int(self._sp.id_to_piece(i)[1:-1], 16) for i in range(self.vocab_size) if self._sp.is_byte(i)
        }
        self._split = re.compile("(" + "|".join(map(re.escape, self._special)) + ")")

    def check_fits(self, rows: int) -> None:
        """Raises CheckpointError when an embedding table of so many rows has none for some of its ids."""
        if self.vocab_size > rows:
            raise CheckpointError(
                f"the tokenizer has {self.vocab_size} ids and the model's vocabulary {rows}: it is another "
                "model's tokenizer.model; put the right one there"
            )

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Token ids of `text`, after <s> unless `bos` is False. `<s>`, `</s>`, `<unk>` in it are special."""
        ids = [self.bos_id] if bos else []
        for part in self._split.split(_LONE_SURROGATE.sub("\ufffd", text)):
            special = self._special.get(part)
            if special is not None:
                ids.append(special)
            elif part:
                ids.extend(self._sp.encode(part))
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a rendered prompt, after <s>, with IMAGE_TOKEN for every `<image>`."""
        first, *rest = text.split(IMAGE_PLACEHOLDER)
        ids = self.encode(first)
        for chunk in rest:
            ids.append(IMAGE_TOKEN)
            ids.extend(self.encode(chunk, bos=False))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` without special tokens, the image token, and ids outside the vocabulary.

        Bytes that are not valid UTF-8 become U+FFFD, one each, so the result is always a valid string.
        """
        kept = [i for i in map(int, ids) if self.is_text(i)]
        return str(self._sp.decode(kept)) if kept else ""

    def is_text(self, token_id: int) -> bool:
        """Whether an id stands for text: inside the vocabulary and not a special token."""
        return 0 <= token_id < self.vocab_size and token_id not in self._special.values()

    def piece(self, token_id: int) -> str | int:
        """The text of one id, spaces as spaces; for a byte-fallback id the byte's value (0 to 255)."""
        byte = self._bytes.get(token_id)
        return self._sp.id_to_piece(token_id).replace(_SPACE, " ") if byte is None else byte

    def content(self, token_id: int) -> bytes:
        """The bytes of one id, spaces as spaces; none outside the vocabulary.

        Joined, those of `encode(text, bos=False)` are a space and the text.
        """
        if not 0 <= token_id < self.vocab_size:
            return b""
        piece = self.piece(token_id)
        return bytes([piece]) if isinstance(piece, int) else piece.encode()


class StreamDecoder:
    """Decodes one id at a time: the texts pushed and flushed, joined, are `Tokenizer.decode` of all ids.

    A character spread over byte-fallback ids is held back until it is whole, so every text is valid UTF-8.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending = b""
        self._started = False

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; empty for special tokens and a character's first bytes."""
        if not self._tokenizer.is_text(token_id):
            return ""
        piece = self._tokenizer.piece(token_id)
        if isinstance(piece, int):
            self._started = True
            self._pending += bytes([piece])
            return self._drain(final=False)
        if not self._started:  # the first leading-space marker belongs to the encoding, not to the text
            piece = self._tokenizer.decode([token_id])
            self._started = True
        return self._drain(final=True) + piece

    def flush(self) -> str:
        """The rest, once no more ids come: U+FFFD for each byte of a character that was never finished."""
        return self._drain(final=True)

    def _drain(self, *, final: bool) -> str:
        text = ""
        while self._pending:
            decoder = codecs.getincrementaldecoder("utf-8")("strict")
            try:
                done = decoder.decode(self._pending, final)
            except UnicodeDecodeError as error:
                text += self._pending[: error.start].decode("utf-8") + "\ufffd"
                self._pending = self._pending[error.start + 1 :]
            else:
                self._pending = decoder.getstate()[0]
                return text + done
        return text
