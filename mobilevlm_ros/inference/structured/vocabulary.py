# SPDX-License-Identifier: Apache-2.0
"""A tokenizer as llguidance asks for it."""

from __future__ import annotations

from mobilevlm_ros.processing.tokenizer import Tokenizer


class Vocabulary:
    """The bytes of every token, as llguidance asks for them."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.vocab_size)
        self.tokens = [tokenizer.content(i) for i in ids]
        self.special_token_ids = [i for i in ids if not tokenizer.is_text(i)]
        self.eos_token_id = tokenizer.eos_id
        self._longest_first = {
            p: i for i, p in enumerate(self.tokens) if i not in self.special_token_ids and p
        }
        self._longest = max(map(len, self._longest_first), default=1)

    def __call__(self, text: bytes | str) -> list[int]:
        """Ids whose bytes are the text's, longest first: SentencePiece itself would put a space in front."""
        data = text.encode() if isinstance(text, str) else text
        ids, at = [], 0
        while at < len(data):
            ends = range(min(len(data), at + self._longest), at, -1)
            end = next((e for e in ends if data[at:e] in self._longest_first), at + 1)
            ids.append(self._longest_first.get(data[at:end], self.eos_token_id))
            at = end
        return ids
