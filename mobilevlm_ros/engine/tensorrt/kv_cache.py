# SPDX-License-Identifier: Apache-2.0
"""The KV cache on the GPU: slots of few sizes, kept for the next conversation with their CUDA graphs."""

from __future__ import annotations

import weakref

from mobilevlm_ros.engine.batching.per_sequence import CachedSequence, room_for
from mobilevlm_ros.engine.bundle import Manifest
from mobilevlm_ros.engine.cuda.runtime import Cuda
from mobilevlm_ros.engine.tensorrt.memory import Allocation, Graph

_SPARE_SLOTS = 3


class KVSlot:
    """Keys and values f16 [layers * 2, kv_heads, room, head_dim]; where no token is, zero or old ones."""

    def __init__(self, allocation: Allocation, room: int) -> None:
        self.allocation = allocation
        self.room = room
        self.graph: Graph | None = None
        """A decode step over this slot, if it was recorded."""
        self.graph_of = -1
        """State of the context that it was recorded in; the graph is of no use in another."""


class SlotPool:
    """Makes slots, and keeps a few that nobody uses any more."""

    def __init__(self, cuda: Cuda, manifest: Manifest, stream: int) -> None:
        self.cuda, self.stream = cuda, stream
        self.context = manifest.context_length
        self.heads = 2 * manifest.num_layers * manifest.num_kv_heads
        self.token = manifest.head_dim * 2
        """Bytes of one token in one head."""
        self._spare: list[KVSlot] = []

    def take(self, room: int) -> KVSlot:
        """A slot with that room, best one with a recorded step. Raises DeviceMemoryError."""
        fitting = [slot for slot in self._spare if slot.room == room]
        if fitting:
            slot = max(fitting, key=lambda slot: slot.graph is not None)
            self._spare.remove(slot)
            return slot
        allocation = Allocation(self.cuda, self.heads * room * self.token)
        self.cuda.clear(allocation.address, allocation.nbytes, self.stream)
        return KVSlot(allocation, room)

    def give_back(self, slot: KVSlot) -> None:
        """Keeps a slot for the next `take`; the one unused for longest goes when there are many."""
        self._spare.append(slot)
        del self._spare[:-_SPARE_SLOTS]

    def copy(self, to: KVSlot, source: KVSlot, length: int) -> None:
        """Copies the first `length` tokens."""
        self.cuda.copy_rows(
            to.allocation.address,
            to.room * self.token,
            source.allocation.address,
            source.room * self.token,
            length * self.token,
            self.heads,
            self.stream,
        )


class TrtSequence(CachedSequence):
    """One sequence in one slot, which grows with it and returns to the pool at its end."""

    def __init__(self, capacity: int, pool: SlotPool) -> None:
        super().__init__(capacity)
        self._pool = pool
        self._held: list[KVSlot] = []  # none or one; the finalizer must not hold this row
        weakref.finalize(self, _release, pool, self._held).atexit = False

    def slot(self, length: int) -> KVSlot:
        """The slot, with room for `length` tokens and those held. Raises DeviceMemoryError."""
        if not self._held:
            self._held.append(self._pool.take(room_for(length, self._pool.context)))
        elif self._held[0].room < length:
            larger = self._pool.take(room_for(length, self._pool.context))
            self._pool.copy(larger, self._held[0], self.length)
            self._pool.give_back(self._held[0])
            self._held[0] = larger
        return self._held[0]

    def copy(self, capacity: int) -> TrtSequence:
        """See Row.copy."""
        twin = TrtSequence(capacity, self._pool)
        if self._held and self.length:
            self._pool.copy(twin.slot(self.length), self._held[0], self.length)
        twin.length = self.length
        return twin


def _release(pool: SlotPool, held: list[KVSlot]) -> None:
    for slot in held:
        pool.give_back(slot)
