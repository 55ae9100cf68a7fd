# SPDX-License-Identifier: Apache-2.0
"""Numbers in a JSON document that end: a model that repeats itself would write digits until max_tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.inference.structured.formats import PLACES

WHOLE = 20
"""Digits before the point; more than any integer of 64 bits has. A schema's own range is narrower."""

_EXPONENT = 99
"""Stands for a token that begins an exponent, among counts of digits."""


class NumberDigits:
    """Follows a document and knows how many digits the number at its end may still get.

    Args:
        leading: what `leading_digits` says of each token.
    """

    def __init__(self, leading: NDArray[np.uint8]) -> None:
        self._leading = leading
        self._text = self._escaped = False
        self._left: int | None = None  # digits that may follow; None outside of numbers
        self._fraction = False

    def accept(self, content: bytes) -> None:
        """The document goes on with these bytes."""
        for byte in content:
            if self._text:
                self._text = self._escaped or byte != ord('"')
                self._escaped = byte == ord("\\") and not self._escaped
            elif ord("0") <= byte <= ord("9"):
                self._left = (WHOLE if self._left is None else self._left) - 1
            elif byte == ord(".") and self._left is not None:
                self._left, self._fraction = PLACES, True
            else:
                self._left, self._fraction = None, False
                self._text, self._escaped = byte == ord('"'), False

    def narrowed(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The tokens bool[V] that keep the number short; all that are allowed where none would be left."""
        if self._left is None:
            return allowed
        narrow = allowed.copy()
        known = narrow[: len(self._leading)]
        known &= self._leading <= max(0, self._left)
        return narrow if narrow.any() else allowed


def leading_digits(contents: Sequence[bytes]) -> NDArray[np.uint8]:
    """For each token, u8[V]: how many digits it begins with; a large number where it begins an exponent."""
    digits = b"0123456789"
    return np.array(
        [
            _EXPONENT if content[:1] in (b"e", b"E") else min(len(content) - len(content.lstrip(digits)), 98)
            for content in contents
        ],
        np.uint8,
    )
