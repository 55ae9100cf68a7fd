# SPDX-License-Identifier: Apache-2.0
"""The KV of what stands before a question, kept so that a follow-up pays only for its own tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mobilevlm_ros.engine.interfaces import KVCache

Key = TypeVar("Key", bound=Hashable)


@dataclass
class _Entry(Generic[Key]):
    cache: KVCache
    nbytes: int
    within: Sequence[Key]


class PrefixCache(Generic[Key]):
    """LRU of KV snapshots under a byte budget.

    Snapshots are never handed out for extension: a user takes `cache.copy()`, so two requests that share a
    prefix cannot disturb each other.

    Args:
        budget: bytes that all snapshots may hold together; one larger than that is not kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: OrderedDict[Key, _Entry[Key]] = OrderedDict()
        self._holders: dict[Key, Key] = {}  # of what is no entry: the one that begins with it
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries or key in self._holders

    def get(self, key: Key) -> KVCache | None:
        """The snapshot (do not extend it), now the most recently used; None if it is not kept.

        It holds more than `key` where that was put `within` a longer one.
        """
        key = key if key in self._entries else self._holders.get(key, key)
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.cache

    def put(self, key: Key, cache: KVCache, within: Sequence[Key] = ()) -> None:
        """Keep a snapshot; the least recently used ones go when the budget is passed.

        Args:
            key: of it.
            cache: the snapshot.
            within: keys of what it begins with. It is found under them too, and takes the place of their own
                snapshots.
        """
        nbytes = cache.nbytes
        if nbytes > self.budget:
            return
        for old in (key, *within):
            if old in self._entries:
                self._drop(old)
        self._entries[key] = _Entry(cache, nbytes, within)
        self._holders.update(dict.fromkeys(within, key))
        self.nbytes += nbytes
        while self.nbytes > self.budget:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key)
        self.nbytes -= entry.nbytes
        for shorter in entry.within:
            if self._holders.get(shorter) == key:
                del self._holders[shorter]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._holders.clear()
        self.nbytes = 0
