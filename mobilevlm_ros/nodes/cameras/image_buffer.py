# SPDX-License-Identifier: Apache-2.0
"""The recent past of one camera: messages as they were received, within a budget of bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mobilevlm_ros.nodes.cameras.stamp_order import WINDOW_NS, StampOrder, Step

JITTER_NS = WINDOW_NS
"""Frames whose stamps lie no further apart than this may have overtaken each other on the way."""


@dataclass(eq=False)
class StampedImage:
    """A received image.

    Attributes:
        message: sensor_msgs/Image or CompressedImage.
        stamp_ns: of its header, nanoseconds; of its arrival where the publisher fills none.
        arrived: monotonic seconds.
        stamped: whether the stamp is the header's.
        latched: whether its publisher sent it before this node listened.
        run: which run of time it belongs to; another number after each jump back.
    """

    message: Any
    stamp_ns: int
    arrived: float = 0.0
    stamped: bool = True
    latched: bool = False
    run: int = 0


class ImageBuffer:
    """The newest image always, and earlier ones as long as all of them fit the budget. Not thread-safe.

    Args:
        budget: bytes of picture data to keep; 0 keeps the newest image alone.

    Attributes:
        order: of the stamps.
        latest: the image with the latest stamp; one that was overtaken on the way takes its place only when
            it arrived a second before it.
        newest: the image that was added last.
    """

    def __init__(self, budget: int = 0) -> None:
        self.budget = budget
        self._kept: deque[StampedImage] = deque()
        self._bytes = 0
        self.order = StampOrder()
        self.latest: StampedImage | None = None
        self.newest: StampedImage | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[StampedImage]:
        return iter(self._kept)

    def add(self, kept: StampedImage, several: bool = False) -> Step:
        """Remember an image; the oldest ones give way. All are forgotten where time jumped back.

        Args:
            several: whether more than one publisher is known.
        """
        step = self.order.add(kept.stamp_ns, kept.arrived, several)
        if step is Step.JUMP:
            self._drop()
        self._kept.append(kept)
        self._bytes += len(kept.message.data)
        while len(self._kept) > 1 and self._bytes > self.budget:
            self._bytes -= len(self._kept.popleft().message.data)
        self.newest = kept
        latest = self.latest
        if (
            latest is None
            or kept.stamp_ns >= latest.stamp_ns
            or kept.arrived - latest.arrived > WINDOW_NS * 1e-9
        ):
            self.latest = kept
        return step

    def candidates(self) -> list[StampedImage]:
        """Images that a question may be about, the best first: the one with the latest stamp, and the one
        that arrived last."""
        found = [self.latest, self.newest]
        return [kept for kept in dict.fromkeys(found) if kept is not None]

    def nearest(self, stamp_ns: int) -> StampedImage | None:
        """The image whose stamp is nearest, the later of two equally near; None when there is none at all."""
        held = [*self._kept, *([self.latest] if self.latest is not None else [])]
        return min(reversed(held), key=lambda kept: abs(kept.stamp_ns - stamp_ns), default=None)

    def clear(self) -> None:
        """Forget everything, the order of the stamps too."""
        self.order = StampOrder()
        self._drop()

    def _drop(self) -> None:
        self._kept.clear()
        self._bytes = 0
        self.latest = self.newest = None
