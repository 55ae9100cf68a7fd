# SPDX-License-Identifier: Apache-2.0
"""Frames of one camera, taken from the middleware only when somebody needs one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from mobilevlm_msgs.msg import Status
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node

from mobilevlm_ros.errors import Busy, ImageError
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.nodes.cameras.clock_trouble import span, stale_text
from mobilevlm_ros.nodes.cameras.clocks import Clocks
from mobilevlm_ros.nodes.cameras.frame_decoder import FrameDecoder
from mobilevlm_ros.nodes.cameras.frame_window import not_near, shortage, window
from mobilevlm_ros.nodes.cameras.image_buffer import JITTER_NS, ImageBuffer, StampedImage
from mobilevlm_ros.nodes.cameras.image_reader import Sample
from mobilevlm_ros.nodes.cameras.image_topic import ImageTopic
from mobilevlm_ros.nodes.cameras.stamp_order import Step
from mobilevlm_ros.ros.images.encodings import Encodings
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import Refused


@dataclass
class Counters:
    """Since the node was configured."""

    taken: int = 0
    invalid: int = 0
    stale: int = 0


class Camera:
    """One configured camera. `newest`, `frame`, `find`, `window` and `converted` may be called from any
    thread, everything else from the executor's.

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
        self.counters = Counters()
        self._node = node
        self._clocks = Clocks(node)
        self._topic = ImageTopic(node, name, transport, reliable)
        self._lock = threading.Lock()
        self._history = ImageBuffer(history_bytes)
        self._decoder = FrameDecoder(name, encodings or {})
        self._run = 0
        self._recorder = None
        if history_bytes:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._recorder = node.create_timer(1.0 / history_rate, self._record, clock=steady)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-JITTER_NS))
        self._jumps = node.get_clock().create_jump_callback(backward, post_callback=self._on_jump)

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
        """Frames that the middleware reports as lost; those we passed over do not count."""
        return self._topic.lost

    @property
    def publishers(self) -> int:
        """Publishers on its topics now, both transports together."""
        return self._topic.publishers

    @property
    def decoding(self) -> bool:
        """Whether a picture is being decoded."""
        return not self._decoder.idle

    def refresh(self) -> None:
        """Take what arrived, and listen where something is published."""
        with self._lock:
            self._take()
            self._topic.follow()
            self._clocks.refresh()

    def close(self) -> None:
        """Stop listening; all frames are forgotten."""
        self._jumps.unregister()
        if self._recorder is not None:
            self._node.destroy_timer(self._recorder)
        with self._lock:
            self._topic.close()
            self._decoder.close()
            self._forget()

    def diagnose(self) -> str:
        """Why nothing arrives, and what to do about it: a sentence."""
        return self._topic.diagnose()

    def trouble(self, max_age: float) -> str:
        """What is wrong between its clock and the node's, and what to do about it; empty where nothing is.

        Args:
            max_age: of its images, seconds; negative = any.
        """
        with self._lock:
            newest = self._history.latest
            return "" if newest is None else self._trouble(newest, max_age)

    def problem(self, max_age: float) -> str:
        """What a person should know about it: that nothing arrives, its clock, several publishers; empty
        where all is well. `max_age` as in `trouble`.
        """
        with self._lock:
            candidates = self._history.candidates()
            if not candidates:
                return self._nothing()
            newest, mixed = candidates[0], self._history.order.mixed(time.monotonic())
            if not any(self._clocks.age(kept).within(max_age) for kept in candidates):
                found = [self._stale(candidates[-1], None, max_age)]
            else:
                trouble = self._trouble(newest, max_age)
                found = [f"receiving, but {trouble}" if trouble else ""]
            return "; ".join(filter(None, [*found, self._topic.rivals(mixed)]))

    def age(self, at_ns: int | None = None) -> float | None:
        """Seconds that the newest frame is old, by its stamp or since it arrived, whichever is more; None
        before the first.

        Args:
            at_ns: instant in nanoseconds of the node's clock; None = now.
        """
        with self._lock:
            candidates = self._history.candidates()
            return min((self._clocks.age(kept, at_ns).seconds for kept in candidates), default=None)

    def frame(self, max_age: float, at_ns: int | None = None) -> Frame:
        """The newest frame, converted. Arguments and errors as for `newest` and `converted`."""
        return self.converted(self.newest(max_age, at_ns))

    def newest(self, max_age: float, at_ns: int | None = None) -> StampedImage:
        """The newest frame as it was received.

        Args:
            max_age: oldest allowed, by its stamp and since it arrived, seconds of the node's clock; negative
                = any.
            at_ns: the instant at which it may be so old, nanoseconds of the node's clock; None = now.

        Raises:
            Refused: NO_FRAME or STALE_FRAME.
        """
        with self._lock:
            self._take()
            candidates = self._history.candidates()
            if not candidates:
                raise Refused(Status.NO_FRAME, f"{self.label} has delivered no image: {self._nothing()}")
            fresh = next((kept for kept in candidates if self._clocks.age(kept, at_ns).within(max_age)), None)
            if fresh is None:
                self.counters.stale += 1
                raise Refused(Status.STALE_FRAME, self._stale(candidates[-1], at_ns, max_age))
        return fresh

    @property
    def remembers(self) -> bool:
        """Whether it keeps earlier frames than the newest."""
        return self._history.budget > 0

    def window(self, end: StampedImage, count: int, interval: float) -> list[StampedImage]:
        """Several kept frames, in the order of their stamps; see `frame_window.window`.

        Raises Refused: NO_FRAME, where there are too few, or their order is not known.
        """
        with self._lock:
            if self._history.order.mixed(time.monotonic()):
                raise Refused(
                    Status.NO_FRAME,
                    f"the order of the frames of {self.label} is not known: {self._topic.rivals(True)}",
                )
            kept = list(self._history)
        found = window(kept, end, count, interval)
        if len(found) < count:
            raise Refused(Status.NO_FRAME, shortage(self.label, len(kept), found, count, interval))
        return found

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
                raise Refused(Status.NO_FRAME, f"{self.label} has delivered no image: {self._nothing()}")
        distance = (nearest.stamp_ns - stamp_ns) * 1e-9
        if 0 <= max_distance < abs(distance):
            told = not_near(self.label, stamp_ns, nearest, max_distance, count if budget else 0)
            raise Refused(Status.FRAME_NOT_FOUND, told)
        return nearest

    def converted(self, kept: StampedImage) -> Frame:
        """A kept image as a frame; the same frame again for the same image, so that it is encoded once.

        Raises:
            ImageError, Busy: the message cannot be decoded, or not in time.
        """
        try:
            frame = self._decoder.frame(kept)  # without the lock: a large picture holds up nobody else
        except (ImageError, Busy) as error:
            self.counters.invalid += isinstance(error, ImageError)
            raise (Busy if isinstance(error, Busy) else ImageError)(f"{self.topic}: {error}") from error
        with self._lock:
            self._decoder.keep_only(self._history.candidates())
        return frame

    def _record(self) -> None:
        with self._lock:
            self._take()

    def _take(self) -> None:
        """Take the newest sample, if there is one."""
        self._clocks.now_ns()  # a look, so that its rate is known
        for sample in self._topic.take():
            self._add(sample)
            self.counters.taken += 1

    def _add(self, sample: Sample) -> None:
        message, told = sample.message, to_nanoseconds(sample.message.header.stamp)
        # A publisher that fills no stamps gets the time of arrival, as near as we know it.
        stamp_ns = told or self._clocks.now_ns() or time.time_ns()
        kept = StampedImage(message, stamp_ns, sample.arrived, bool(told), sample.latched, self._run)
        before = self._history.latest
        if self._history.add(kept, self._topic.offered > 1) is Step.JUMP and before is not None:
            self._run += 1
            kept.run = self._run
            back = f"went back by {span((before.stamp_ns - kept.stamp_ns) * 1e-9)}"
            self._say(f"the stamps of {self.label} {back}, as when a bag loops or a simulation")
        self._decoder.keep_only(self._history.candidates())

    def _forget(self) -> None:
        self._history.clear()
        self._decoder.keep_only(())

    def _on_jump(self, _: TimeJump) -> None:
        """The clock was set back (a bag loops) or replaced: what we have belongs to another time."""
        with self._lock:
            known = self._history.latest is not None
            list(self._topic.take())  # it waited in the middleware since before
            self._forget()
            self._run += 1
        if known:
            self._say("the node's clock was set back or replaced, as when a bag loops or a simulation")

    def _say(self, what: str) -> None:
        anew = f"images of before are forgotten, and monitors of {self.label} start anew"
        self._node.get_logger().warning(f"{what} starts again: {anew}")

    def _nothing(self) -> str:
        """Why there is no image at all."""
        trouble = self._clocks.trouble(None, 0.0, -1.0)
        return self._topic.diagnose() + (f"; besides, {trouble}" if trouble else "")

    def _trouble(self, kept: StampedImage, max_age: float) -> str:
        return self._clocks.trouble(kept, self._history.order.still_for, max_age)

    def _stale(self, kept: StampedImage, at_ns: int | None, max_age: float) -> str:
        age, trouble = self._clocks.age(kept, at_ns), self._trouble(kept, max_age)
        return stale_text(self.label, age, max_age, self._topic.silence(), trouble)
