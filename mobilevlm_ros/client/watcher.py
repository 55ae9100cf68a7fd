# SPDX-License-Identifier: Apache-2.0
"""What a running node tells of itself, kept for whoever looks: metrics, captions, monitors, its cameras'
pictures.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Generic, TypeVar

from mobilevlm_msgs.msg import Caption, Metrics, MonitorState
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.client.own_node import OwnNode
from mobilevlm_ros.errors import RequestTimeout
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
from mobilevlm_ros.ros.stamps import to_nanoseconds

M = TypeVar("M")

LINGER = 5.0
"""Seconds that a camera is listened to after the last look at it."""

SILENCE = 5.0
"""Seconds without metrics after which a node counts as gone; by default it tells some each second."""

NEWEST = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
"""Of pictures: the newest alone, however it is published."""


@dataclass(frozen=True)
class Heard(Generic[M]):
    """A message and when it arrived here: Unix time in seconds."""

    message: M
    at: float


class _Picture:
    """A camera that is being looked at."""

    def __init__(self) -> None:
        self.subscription: Any = None
        self.message: Any = None
        self.looked = monotonic()
        self.frame: Frame | None = None  # of the message, once somebody wanted it


class NodeWatcher:
    """Listens to a node. Thread-safe; its ROS node lives on a thread of its own.

    Metrics are always listened to. A node makes captions only while somebody listens, so they and the
    monitors are listened to while `watching`. A camera is listened to while somebody looks at it.

    Args:
        node: the node's name, absolute or in the namespace of `args`.
        args: ROS arguments.
    """

    def __init__(self, node: str = "mobilevlm", args: Sequence[str] | None = None) -> None:
        self._name = node
        self._own = OwnNode("mobilevlm_watcher", args)
        self._node = self._own.node
        self._changed = threading.Condition()
        self._metrics: Heard[Metrics] | None = None
        self._period = 0.0
        self._captions: dict[str, Heard[Caption]] = {}
        self._monitors: dict[tuple[str, str], Heard[MonitorState]] = {}
        self._pictures: dict[str, _Picture] = {}  # by topic
        self._watchers = 0
        self._watched: list[Any] = []  # subscriptions
        self._node.create_subscription(Metrics, f"{node}/metrics", self._on_metrics, 10)
        self._node.create_timer(1.0, self._tidy)
        self._own.start()

    def __enter__(self) -> NodeWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the ROS graph."""
        self._own.close()

    @property
    def topic(self) -> str:
        """Resolved name of the node's metrics."""
        return str(self._node.resolve_topic_name(f"{self._name}/metrics"))

    @property
    def metrics(self) -> Heard[Metrics] | None:
        """The newest; None before the first."""
        return self._metrics

    @property
    def silent(self) -> bool:
        """Whether nothing publishes metrics now, or none came for several of their periods (the node's
        parameter metrics_period).
        """
        heard = self._metrics
        if heard is None or time() - heard.at > max(SILENCE, 3 * self._period):
            return True
        return bool(self._own.is_open and self._node.count_publishers(self.topic) == 0)

    @property
    def captions(self) -> list[Heard[Caption]]:
        """The newest of each camera, of those heard while somebody was watching."""
        with self._changed:
            return list(self._captions.values())

    @property
    def monitors(self) -> list[Heard[MonitorState]]:
        """The newest state of each monitor, of those heard while somebody was watching."""
        with self._changed:
            return list(self._monitors.values())

    def wait_for(self, condition: Callable[[], M], timeout: float) -> M:
        """The value of `condition`, once it is true; after so many seconds as it is. It is looked at whenever
        something is heard.
        """
        with self._changed:
            self._changed.wait_for(condition, timeout)
            return condition()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While it is entered, captions and monitors are listened to."""
        self._watch(1)
        try:
            yield
        finally:
            self._watch(-1)

    def frame(self, topic: str, after_ns: int = -1, timeout: float = 5.0) -> Frame:
        """The newest picture of an image topic (raw; `<topic>/compressed` is preferred where it is there).

        Args:
            topic: resolved name.
            after_ns: wait for a picture with another stamp; -1: any will do.
            timeout: seconds to wait; then the newest there is.

        Raises:
            RequestTimeout: no picture came.
            ImageError: it cannot be decoded.
        """
        picture = self._look(topic.removesuffix("/compressed"))

        def there() -> bool:
            message = picture.message
            return message is not None and to_nanoseconds(message.header.stamp) != after_ns

        self.wait_for(there, timeout)
        with self._changed:
            message, frame = picture.message, picture.frame
        if message is None:
            raise RequestTimeout(f"no picture came on {topic} within {timeout:g} s: check the camera")
        if frame is None:
            raw = isinstance(message, Image)
            rgb = image_to_rgb(message) if raw else compressed_to_rgb(message)
            frame = Frame(rgb, to_nanoseconds(message.header.stamp), message.header.frame_id)
            with self._changed:
                if picture.message is message:
                    picture.frame = frame
        return frame

    def _look(self, topic: str) -> _Picture:
        with self._changed:
            picture = self._pictures.get(topic)
            if picture is None:
                picture = self._pictures[topic] = _Picture()
                self._post(lambda: self._subscribe(topic))
            picture.looked = monotonic()
            return picture

    def _subscribe(self, topic: str) -> None:
        picture = self._pictures.get(topic)
        if picture is None or picture.subscription is not None:
            return

        def keep(message: Any) -> None:
            with self._changed:
                picture.message, picture.frame = message, None
                self._changed.notify_all()

        compressed = self._node.count_publishers(f"{topic}/compressed") > 0
        kind, name = (CompressedImage, f"{topic}/compressed") if compressed else (Image, topic)
        picture.subscription = self._node.create_subscription(kind, name, keep, NEWEST)

    def _tidy(self) -> None:
        """Let go of cameras that nobody looks at."""
        for topic, picture in list(self._pictures.items()):
            if monotonic() - picture.looked > LINGER and picture.subscription is not None:
                with self._changed:
                    del self._pictures[topic]
                self._node.destroy_subscription(picture.subscription)

    def _watch(self, change: int) -> None:
        with self._changed:
            self._watchers += change
        self._post(self._follow)

    def _follow(self) -> None:
        """Listen, or not, as there are watchers."""
        with self._changed:
            wanted = self._watchers > 0
        if wanted and not self._watched:
            self._watched = [
                self._node.create_subscription(Caption, f"{self._name}/captions", self._on_caption, 10),
                self._node.create_subscription(MonitorState, f"{self._name}/monitors", self._on_monitor, 10),
            ]
        elif not wanted and self._watched:
            for subscription in self._watched:
                self._node.destroy_subscription(subscription)
            self._watched = []

    def _on_metrics(self, message: Metrics) -> None:
        with self._changed:
            now = time()
            self._period = 0.0 if self._metrics is None else now - self._metrics.at
            self._metrics = Heard(message, now)
            self._changed.notify_all()

    def _on_caption(self, message: Caption) -> None:
        with self._changed:
            self._captions[message.camera] = Heard(message, time())
            self._changed.notify_all()

    def _on_monitor(self, message: MonitorState) -> None:
        with self._changed:
            self._monitors[message.camera, message.name] = Heard(message, time())
            self._changed.notify_all()

    def _post(self, work: Callable[[], Any]) -> None:
        """Run on the node's thread: rclpy's subscriptions are not safe beside a spinning executor."""
        self._own.executor.create_task(work)
