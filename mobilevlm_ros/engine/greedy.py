# SPDX-License-Identifier: Apache-2.0
"""The likeliest answer, token by token: for comparing models. The node's own answers come from inference/."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine


def decode_greedily(
    language: LanguageEngine,
    cache: KVCache,
    logits: NDArray[np.float32],
    stop_ids: Container[int],
    max_tokens: int,
) -> tuple[list[int], NDArray[np.float32]]:
    """Continues what `cache` (batch 1) holds, whose last logits are f32 [V], by the likeliest tokens.

    Ends before a stop id, after `max_tokens` (at least 1), or when the cache is full. Returns the answer's
    ids [n] and the logits f32 [n or n + 1, V] that chose them, and the stop id where one came.
    """
    ids: list[int] = []
    rows = [logits]
    while (token := int(rows[-1].argmax())) not in stop_ids:
        ids.append(token)
        if len(ids) == max_tokens or cache.length == cache.capacity:
            break
        rows.append(language.forward(language.embed(np.array([token]))[None], cache)[0, -1])
    return ids, np.stack(rows)
