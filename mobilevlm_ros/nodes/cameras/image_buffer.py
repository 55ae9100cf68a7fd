# SPDX-License-Identifier: Apache-2.0
"""The recent past of one camera: messages as they were received, within a budget of bytes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

JITTER_NS = 1_000_000_000
"""A stamp that lies further back than this behind another one is another run of time: a bag that loops, a
simulation that starts again. Nearer ones are frames that overtook each other.
"""


@dataclass(eq=False)
class StampedImage:
    """A received image.

    Attributes:
        message: sensor_msgs/Image or CompressedImage.
        stamp_ns: of its header, nanoseconds; of its arrival where the publisher fills none.
    """

    message: Any
    stamp_ns: int


class ImageBuffer:
    """The newest image always, and earlier ones as long as all of them fit the budget. Not thread-safe.

    Args:
        budget: bytes of picture data to keep; 0 keeps the newest image alone.
    """

    def __init__(self, budget: int = 0) -> None:
        self.budget = budget
        self._kept: deque[StampedImage] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def newest(self) -> StampedImage | None:
        """What was added last."""
        return self._kept[-1] if self._kept else None

    def add(self, kept: StampedImage) -> None:
        """Remember an image; the oldest ones give way. All are forgotten where time jumped back."""
        if any(kept.stamp_ns < earlier.stamp_ns - JITTER_NS for earlier in self._kept):
            self.clear()
        self._kept.append(kept)
        self._bytes += len(kept.message.data)
        while len(self._kept) > 1 and self._bytes > self.budget:
            self._bytes -= len(self._kept.popleft().message.data)

    def nearest(self, stamp_ns: int) -> StampedImage | None:
        """The image whose stamp is nearest, the later of two equally near; None when there is none at all."""
        return min(reversed(self._kept), key=lambda kept: abs(kept.stamp_ns - stamp_ns), default=None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._bytes = 0
