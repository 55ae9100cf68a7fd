# SPDX-License-Identifier: Apache-2.0
"""The KV of what stands before a question, kept so that a follow-up pays only for its own tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mobilevlm_ros.engine.interfaces import KVCache

Key = TypeVar("Key", bound=Hashable)


@dataclass
class _Entry:
    cache: KVCache
    nbytes: int


class PrefixCache(Generic[Key]):
    """LRU of KV snapshots under a byte budget.

    Snapshots are never handed out for extension: a user takes `cache.copy()`, so two requests that share a
    prefix cannot disturb each other.

    Args:
        budget: bytes that all snapshots may hold together; one larger than that is not kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key) -> KVCache | None:
        """The snapshot (do not extend it), now the most recently used; None if it is not kept."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.cache

    def put(self, key: Key, cache: KVCache) -> None:
        """Keep a snapshot; the least recently used ones go when the budget is passed."""
        nbytes = cache.nbytes
        if nbytes > self.budget:
            return
        previous = self._entries.pop(key, None)
        if previous is not None:
            self.nbytes -= previous.nbytes
        self._entries[key] = _Entry(cache, nbytes)
        self.nbytes += nbytes
        while self.nbytes > self.budget:
            _, oldest = self._entries.popitem(last=False)
            self.nbytes -= oldest.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.nbytes = 0
