# SPDX-License-Identifier: Apache-2.0
"""~/annotated_image: what the cameras show, with the last caption and answer, and the monitors as lamps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from time import monotonic

from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.inference.monitoring.hysteresis import State
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.publishers.captions import Captioner
from mobilevlm_ros.nodes.publishers.monitors import Monitors, Watch
from mobilevlm_ros.nodes.services.ask_server import AskServer
from mobilevlm_ros.nodes.services.responses import header_of
from mobilevlm_ros.ros.images.annotation import BLUE, DIM, GREEN, GREY, RED, Lamp, Line, overlay
from mobilevlm_ros.ros.images.messages import image_message

_COLORS = {State.RAISED: RED, State.CLEAR: GREEN, State.UNKNOWN: GREY}
_SAME_TIME = 0.05
"""Seconds between a caption's frame and the one it is drawn on, up to which it is not dated."""


class AnnotatedImages:
    """Publishes up to `annotated_rate` pictures per second and camera, only while somebody listens."""

    def __init__(self, node: Node, ask_server: AskServer, captioner: Captioner, monitors: Monitors) -> None:
        self._node = node
        self._ask_server = ask_server
        self._captioner = captioner
        self._monitors = monitors
        self._publisher = node.create_publisher(Image, "~/annotated_image", 1)
        self._own: dict[str, Publisher] = {}  # by camera: ~/annotated_image/<camera>
        self._due: dict[str, float] = {}  # by camera, monotonic
        self._shown: dict[str, Frame] = {}

    @property
    def listeners(self) -> int:
        """Subscriptions now."""
        return sum(int(p.get_subscription_count()) for p in (self._publisher, *self._own.values()))

    def start(self, cameras: Mapping[str, Camera]) -> None:
        """A topic for each camera that has a name, besides the one for all."""
        self.stop()
        self._own = {
            name: self._node.create_publisher(Image, f"~/annotated_image/{name}", 1)
            for name in cameras
            if name
        }

    def stop(self) -> None:
        """Remove the cameras' topics."""
        for publisher in self._own.values():
            self._node.destroy_publisher(publisher)
        self._own = {}

    def close(self) -> None:
        """Remove the topics."""
        self.stop()
        self._node.destroy_publisher(self._publisher)

    def tick(self, cameras: Mapping[str, Camera]) -> None:
        """Publish what is due; call it often."""
        rate = self._node.get_parameter("annotated_rate").value
        if rate <= 0 or not self.listeners:
            self._shown.clear()
            return
        now = monotonic()
        for name, camera in cameras.items():
            targets = [p for p in (self._publisher, self._own.get(name)) if p is not None]
            heard = [p for p in targets if p.get_subscription_count()]
            if now < self._due.get(name, 0.0) or not heard:
                continue
            self._due[name] = now + 1.0 / rate
            try:
                frame = camera.frame(self._node.get_parameter("max_age").value)
            except MobileVLMError:
                continue  # diagnostics say why
            if frame is not self._shown.get(name):
                self._shown[name] = frame
                drawn = self._draw(frame, name or camera.topic)
                for publisher in heard:
                    publisher.publish(drawn)

    def _draw(self, frame: Frame, label: str) -> Image:
        top = [Line(label)]
        exchange = self._ask_server.exchanges.get(frame.camera)
        if exchange is not None:
            seconds = monotonic() - exchange.at
            max_age = self._node.get_parameter("max_age").value
            faded = 0 <= max_age < seconds
            about = f"({exchange.confidence:.2f}) {_ago(seconds)}"
            top.append(Line(exchange.question, DIM if faded else GREY))
            top.append(Line(exchange.reply, DIM if faded else BLUE, end=about))
        caption = self._captioner.latest(frame.camera)
        bottom = [] if caption is None else [_caption(frame, *caption)]
        lamps = [lamp_of(watch) for watch in self._monitors.watches if watch.camera.name == frame.camera]
        return image_message(overlay(frame.image, top, bottom, lamps), header_of(frame))


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"


def lamp_of(watch: Watch) -> Lamp:
    """Red while raised, green while clear, a grey ring while nothing is known; with the last probability."""
    label = watch.monitor.name
    if not math.isnan(watch.probability):
        label += f" {watch.probability:.2f}"
    return Lamp(label, _COLORS[watch.state], watch.state is not State.UNKNOWN)


def _caption(frame: Frame, about: Frame, answer: Answer) -> Line:
    """The caption, and how much older than the picture it is."""
    seconds = (frame.stamp_ns - about.stamp_ns) * 1e-9
    age = "" if abs(seconds) < _SAME_TIME else f" {seconds:.1f} s ago"
    return Line(answer.text, end=f"({answer.confidence:.2f}){age}")
