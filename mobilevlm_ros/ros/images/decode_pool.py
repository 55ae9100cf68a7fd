# SPDX-License-Identifier: Apache-2.0
"""Decoding on threads of its own: neither the executor nor the model waits for somebody's large picture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mobilevlm_ros.errors import Busy

T = TypeVar("T")


class DecodePool:
    """A few threads and a bounded queue. Thread-safe.

    Args:
        workers: pictures that are decoded at once; OpenCV, zlib and libjpeg let go of Python's lock.
        capacity: pictures that may wait or be in work.
        name: of the threads.
    """

    def __init__(self, workers: int = 2, capacity: int = 16, name: str = "decode") -> None:
        self._executor = ThreadPoolExecutor(workers, name)
        self._free = threading.Semaphore(capacity)
        self._capacity = capacity
        self._pending = 0
        self._lock = threading.Lock()

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is in work."""
        return self._pending == 0

    def submit(self, decode: Callable[[], T]) -> Future[T]:
        """Run `decode` when a thread is free. Raises Busy when the queue is full."""
        if not self._free.acquire(blocking=False):
            raise Busy(f"{self._capacity} pictures wait to be decoded already: send it again later")
        self._count(1)
        try:
            future = self._executor.submit(decode)
        except RuntimeError as error:  # closed
            self._done()
            raise Busy("no pictures are decoded any more: the camera or the node was closed") from error
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object = None) -> None:
        self._count(-1)
        self._free.release()

    def _count(self, change: int) -> None:
        with self._lock:
            self._pending += change

    def close(self) -> None:
        """Take nothing more; what waits is dropped, what is in work ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
