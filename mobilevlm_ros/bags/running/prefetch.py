# SPDX-License-Identifier: Apache-2.0
"""Reads and decodes the next frames while the model is at work on one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

DEPTH = 2
"""Frames that wait decoded: one would do but for uneven work; a raw picture of 12 megapixels takes 36 MB."""

_POLL = 0.1
"""Seconds after which the reader sees that nobody wants more."""


def prefetch(items: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """The same items, made by a thread of its own; what it raises is raised here, in its place."""
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    over = threading.Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> bool:
        while not over.is_set():
            with suppress(queue.Full):
                waiting.put(entry, timeout=_POLL)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=work, name="read-bag", daemon=True)
    thread.start()
    try:
        while True:
            good, item = waiting.get()
            if good:
                yield item  # type: ignore[misc]
            elif item is None:
                return
            else:
                raise item  # type: ignore[misc]
    finally:
        over.set()
        thread.join()
