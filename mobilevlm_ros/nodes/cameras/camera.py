# SPDX-License-Identifier: Apache-2.0
"""Frames of one camera, taken from the middleware only when somebody needs one."""

from __future__ import annotations

import threading
from concurrent import futures
from dataclasses import dataclass
from functools import partial

import numpy as np
from mobilevlm_msgs.msg import Status
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image

from mobilevlm_ros.errors import Busy, ImageError
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.nodes.cameras.image_buffer import JITTER_NS, ImageBuffer, StampedImage
from mobilevlm_ros.nodes.cameras.image_topic import ImageTopic
from mobilevlm_ros.ros.decode_pool import DecodePool
from mobilevlm_ros.ros.image_conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.image_encodings import Encodings
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import Refused

DECODE_LIMIT = 1.0
"""Seconds that the model waits for a camera's picture; one of 12 megapixels takes 0.1 to 0.3."""

YEAR = 365 * 86400.0


@dataclass
class Counters:
    """Since the node was configured."""

    taken: int = 0
    invalid: int = 0
    stale: int = 0


class Camera:
    """One configured camera. `frame`, `find` and `converted` may be called from any thread, everything else
    from the executor's.

    Args:
        node: gives the clock, the graph and the subscriptions.
        name: as configured; the topics are <name>/image and <name>/image/compressed, relative to the node.
        transport: 'raw', 'compressed' or 'auto'.
        reliable: ask for reliable delivery.
        history_bytes: of recent images to keep, for questions about the past; 0: only the newest, and it
            stays in the middleware until somebody needs it.
        history_rate: images per second to keep.
        encodings: how to read encodings that do not say it themselves.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        transport: str = "auto",
        reliable: bool = False,
        history_bytes: int = 0,
        history_rate: float = 2.0,
        encodings: Encodings | None = None,
    ) -> None:
        self.name = name
        self._encodings = encodings or {}
        self.counters = Counters()
        self._node = node
        self._clock = node.get_clock()
        self._topic = ImageTopic(node, name, transport, reliable)
        self._lock = threading.Lock()
        self._history = ImageBuffer(history_bytes)
        self._pool = DecodePool(workers=1, capacity=1, name="decode-camera")
        self._decoding: tuple[StampedImage, futures.Future[NDArray[np.uint8]]] | None = None
        self._converted: tuple[StampedImage, Frame] | None = (
            None  # of the newest image that somebody asked for
        )
        self._recorder = None
        if history_bytes:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._recorder = node.create_timer(1.0 / history_rate, self._record, clock=steady)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-JITTER_NS))
        self._jumps = self._clock.create_jump_callback(backward, post_callback=self._on_jump)

    @property
    def topic(self) -> str:
        """Resolved name of the topic it listens to; the raw one before it found any publisher."""
        return self._topic.name

    @property
    def label(self) -> str:
        """Name for sentences."""
        return f"camera {self.name!r}" if self.name else "the camera"

    @property
    def lost(self) -> int:
        """Frames that the middleware reports as lost on the way; those we passed over do not count."""
        return self._topic.lost

    @property
    def publishers(self) -> int:
        """Publishers on its topics now, both transports together."""
        return self._topic.publishers

    def refresh(self) -> None:
        """Take what arrived, and listen where something is published."""
        with self._lock:
            self._take()
            self._topic.follow()

    def close(self) -> None:
        """Stop listening; all frames are forgotten."""
        self._jumps.unregister()
        if self._recorder is not None:
            self._node.destroy_timer(self._recorder)
        with self._lock:
            self._topic.close()
            self._pool.close()
            self._forget()

    def diagnose(self) -> str:
        """Why nothing arrives, and what to do about it: a sentence."""
        return self._topic.diagnose()

    def age(self, at_ns: int | None = None) -> float | None:
        """Seconds from the stamp of the newest frame that was taken to an instant; None before the first.

        Args:
            at_ns: instant in nanoseconds of the node's clock; None = now.
        """
        with self._lock:
            newest = self._history.newest
            return None if newest is None else self._age(newest, at_ns)

    def frame(self, max_age: float, at_ns: int | None = None) -> Frame:
        """The newest frame, converted.

        Args:
            max_age: oldest allowed, seconds of the node's clock; negative = any.
            at_ns: the instant at which it may be so old, nanoseconds of the node's clock; None = now.

        Raises:
            Refused: NO_FRAME or STALE_FRAME.
            ImageError: the message cannot be decoded.
        """
        with self._lock:
            self._take()
            newest = self._history.newest
            if newest is None:
                raise Refused(Status.NO_FRAME, f"{self.label} has delivered no image: {self.diagnose()}")
            age = self._age(newest, at_ns)
            if 0 <= max_age < age:
                self.counters.stale += 1
                raise Refused(Status.STALE_FRAME, self._stale(age, max_age))
        return self.converted(newest)

    def find(self, stamp_ns: int, max_distance: float) -> StampedImage:
        """The kept image whose stamp is nearest.

        Args:
            stamp_ns: nanoseconds in the clock of the images.
            max_distance: from the stamp, either way, seconds; negative = any.

        Raises:
            Refused: NO_FRAME or FRAME_NOT_FOUND.
        """
        with self._lock:
            self._take()
            nearest = self._history.nearest(stamp_ns)
            count, budget = len(self._history), self._history.budget
        if nearest is None:
            raise Refused(Status.NO_FRAME, f"{self.label} has delivered no image: {self.diagnose()}")
        distance = (nearest.stamp_ns - stamp_ns) * 1e-9
        if 0 <= max_distance < abs(distance):
            kept = f"the nearest of {count} kept images" if budget else "its newest image, the only one kept,"
            advice = "raise history_mb or ask sooner" if budget else "set history_mb to keep earlier ones"
            where = "later" if distance > 0 else "earlier"
            raise Refused(
                Status.FRAME_NOT_FOUND,
                f"{self.label} has no image within max_age {max_distance:.2f} s of stamp "
                f"{stamp_ns * 1e-9:.3f}: {kept} is {abs(distance):.2f} s {where} "
                f"({nearest.stamp_ns * 1e-9:.3f}); allow a larger max_age, or {advice}",
            )
        return nearest

    def converted(self, kept: StampedImage) -> Frame:
        """A kept image as a frame; the same frame again for the same image, so that it is encoded once.

        Raises:
            ImageError: the message cannot be decoded.
        """
        known = self._converted
        if known is not None and known[0] is kept:
            return known[1]
        message = kept.message  # without the lock: a large picture must not hold up the executor
        try:
            rgb = self._decode(kept)
        except (ImageError, Busy) as error:
            self.counters.invalid += 1
            raise ImageError(f"{self.topic}: {error}") from error
        frame = Frame(rgb, to_nanoseconds(message.header.stamp), message.header.frame_id, self.name)
        with self._lock:
            if kept is self._history.newest:
                self._converted = (kept, frame)
        return frame

    def _decode(self, kept: StampedImage) -> NDArray[np.uint8]:
        """The pixels, from the camera's own thread: what takes too long holds up this camera only."""
        if self._decoding is None or self._decoding[0] is not kept:
            message = kept.message
            to_rgb = image_to_rgb if isinstance(message, Image) else compressed_to_rgb
            self._decoding = (kept, self._pool.submit(partial(to_rgb, message, self._encodings)))
        try:
            rgb = self._decoding[1].result(DECODE_LIMIT)
        except (TimeoutError, futures.TimeoutError, futures.CancelledError) as error:
            raise ImageError(
                f"a picture takes more than {DECODE_LIMIT:.0f} s to decode: publish smaller ones"
            ) from error
        self._decoding = None  # what failed is remembered, so that it is not tried again
        return rgb

    def _record(self) -> None:
        with self._lock:
            self._take()

    def _take(self) -> None:
        """Take the newest sample, if there is one."""
        for message in self._topic.take():
            # A publisher that fills no stamps gets the time of arrival, as near as we know it.
            stamp_ns = to_nanoseconds(message.header.stamp) or self._clock.now().nanoseconds
            self._history.add(StampedImage(message, stamp_ns))
            self._converted = None
            self.counters.taken += 1

    def _forget(self) -> None:
        self._history.clear()
        self._converted = None

    def _on_jump(self, _: TimeJump) -> None:
        """The clock was set back (a bag loops) or replaced: what we have belongs to another time."""
        with self._lock:
            for _message in self._topic.take():
                pass  # it waited in the middleware since before
            self._forget()

    def _age(self, kept: StampedImage, at_ns: int | None) -> float:
        now = self._clock.now().nanoseconds if at_ns is None else at_ns
        return float(now - kept.stamp_ns) * 1e-9

    def _stale(self, age: float, max_age: float) -> str:
        text = f"the newest image of {self.label} is {age:.2f} s old, older than max_age {max_age:.2f} s: "
        if age > YEAR:
            return (
                text + "its stamps are in another clock than the node's; set use_sim_time on both or on none"
            )
        if self._topic.silent_for > 1.0 and self.publishers:
            return text + f"{self.diagnose()}; or allow a larger max_age"
        return text + "check that the camera still publishes, or allow a larger max_age"
