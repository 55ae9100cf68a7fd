# SPDX-License-Identifier: Apache-2.0
"""Several continuations of one prompt, on an engine that reads one sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.base import KVCache, LanguageEngine
from mobilevlm_ros.errors import ContextOverflow


def branch_in_turn(
    engine: LanguageEngine,
    continuations: Sequence[NDArray[np.float32]],
    cache: KVCache,
    num_logits: int,
) -> list[NDArray[np.float32]]:
    """LanguageEngine.branch by `forward` and `truncate`, in the room behind what the cache holds.

    One masked row for all could gain at most 2 to 9 % in 4 bits on a CPU: benchmarks/frame_batch.py.
    """
    if cache.batch != 1:
        raise ValueError(f"continuations need a cache of one row, this one has {cache.batch}")
    length = cache.length
    longest = length + max(map(len, continuations), default=0)
    if longest > engine.max_length:
        raise ContextOverflow(
            f"{length} tokens and {longest - length} more do not fit the model's context of "
            f"{engine.max_length}; shorten the question or the session"
        )
    room = cache if longest <= cache.capacity else cache.copy(capacity=longest)
    results = []
    for tokens in continuations:
        results.append(engine.forward(tokens[None], room, min(num_logits, len(tokens)))[0])
        room.truncate(length)
    return results
