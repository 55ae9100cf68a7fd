# SPDX-License-Identifier: Apache-2.0
"""Several continuations of one prompt, on an engine that reads one sequence at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.checks import check_room
from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine
from mobilevlm_ros.errors import ContextOverflow


def branch_in_turn(
    engine: LanguageEngine,
    continuations: Sequence[NDArray[np.float32]],
    cache: KVCache,
    num_logits: int,
) -> list[NDArray[np.float32]]:
    """LanguageEngine.branch by `forward` and `truncate`, in the room behind what the cache holds."""
    check_branches(continuations, cache, engine.max_length)
    length = cache.length
    longest = length + max(map(len, continuations), default=0)
    room = cache if longest <= cache.capacity else cache.copy(capacity=longest)
    results = []
    for tokens in continuations:
        results.append(engine.forward(tokens[None], room, min(num_logits, len(tokens)))[0])
        room.truncate(length)
    return results


class BranchesInTurn:
    """Branches that each have a copy of the prompt's cache."""

    def __init__(self, engine: LanguageEngine, cache: KVCache, room: int) -> None:
        check_room(cache.length, room, engine.max_length, engine.max_length)
        self._engine = engine
        self._prompt = cache
        self._capacity = cache.length + room
        self._caches: dict[int, KVCache] = {}

    def read(
        self, pieces: Mapping[int, NDArray[np.float32]], num_logits: int = 1
    ) -> dict[int, NDArray[np.float32]]:
        """See Branches.read."""
        read = {}
        for number, piece in pieces.items():
            if number not in self._caches:
                self._caches[number] = self._prompt.copy(capacity=self._capacity)
            needs_logits = min(num_logits, len(piece))
            read[number] = self._engine.forward(piece[None], self._caches[number], needs_logits)[0]
        return read


def check_branches(continuations: Sequence[NDArray[np.float32]], cache: KVCache, max_length: int) -> None:
    """Raises ValueError unless the cache has one row, ContextOverflow when the longest does not fit."""
    if cache.batch != 1:
        raise ValueError(f"continuations need a cache of one row, this one has {cache.batch}")
    longest = max(map(len, continuations), default=0)
    if cache.length + longest > max_length:
        raise ContextOverflow(
            f"{cache.length} tokens and {longest} more do not fit the model's context of {max_length}; "
            "shorten the question or the session"
        )
