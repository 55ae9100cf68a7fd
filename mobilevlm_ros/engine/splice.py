# SPDX-License-Identifier: Apache-2.0
"""A prompt with a picture as the embeddings that a decoder reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.processing.splice import splice_parts
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN


def splice(
    ids: Sequence[int],
    image: NDArray[np.float32],
    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], int]:
    """Embeddings f32 [T, H] of a prompt's ids, and how many tokens follow the image.

    `image` f32 [N, H] takes the place of the one IMAGE_TOKEN; `embed` makes f32 [n, H] of ids i64 [n]. Raises
    QuestionError for ids without an IMAGE_TOKEN, or with several.
    """
    parts = splice_parts(ids, [image], lambda part: embed(np.array(ids[part], np.int64)))
    return np.concatenate(parts), len(ids) - 1 - list(ids).index(IMAGE_TOKEN)
