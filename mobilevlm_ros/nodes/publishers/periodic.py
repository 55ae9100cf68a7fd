# SPDX-License-Identifier: Apache-2.0
"""What the node does without being asked: captions, monitors, metrics, the annotated image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rclpy.node import Node

from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.inference.monitoring.monitors import Monitor
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.model_manager import ModelManager
from mobilevlm_ros.nodes.parameters.monitors_file import MonitorsFile
from mobilevlm_ros.nodes.publishers.annotated_image import AnnotatedImages
from mobilevlm_ros.nodes.publishers.captions import Captioner
from mobilevlm_ros.nodes.publishers.metrics import MetricsReporter
from mobilevlm_ros.nodes.publishers.monitors import Monitors
from mobilevlm_ros.nodes.services.ask_server import AskServer
from mobilevlm_ros.nodes.services.memory_server import MemoryServer


class PeriodicPublishers:
    """Made when the node is configured, at work while it is active. Belongs to the executor's thread.

    Attributes:
        statistics: of all answers, questions included.
        captioner, monitors: what they are.
    """

    def __init__(
        self,
        node: Node,
        model: ModelManager,
        ask_server: AskServer,
        monitors_file: MonitorsFile,
        memory: MemoryServer,
    ) -> None:
        self._node = node
        self._model = model
        self._memory = memory
        self._cameras: Mapping[str, Camera] = {}
        self._monitors_file = monitors_file
        self.statistics = InferenceMetrics()
        self.captioner = Captioner(node, model, self.statistics, self._caption_listeners)
        self.captioner.on_caption = memory.caption
        self.monitors = Monitors(node, model, self.statistics)
        self.monitors.on_change = memory.monitor
        self._annotated = AnnotatedImages(node, ask_server, self.captioner, self.monitors)
        self._metrics = MetricsReporter(
            node, model, ask_server, self.captioner, self.monitors, self.statistics
        )
        self._ask_server = ask_server
        ask_server.on_answer = self.statistics.question
        ask_server.on_camera_answer = memory.answer

    def start(self, cameras: Mapping[str, Camera], monitors: Sequence[Monitor]) -> None:
        """Begin to work on these cameras."""
        self._cameras = cameras
        self.captioner.start(cameras)
        self._annotated.start(cameras)
        self.monitors.start(monitors, cameras)

    def stop(self, reason: str) -> None:
        """Rest; monitors tell the reason."""
        self._cameras = {}
        self.captioner.stop()
        self._annotated.stop()
        self.monitors.stop(reason)

    def close(self, reason: str) -> None:
        """Remove the topics."""
        self._ask_server.on_answer = self._ask_server.on_camera_answer = None
        self._cameras = {}
        self.captioner.close()
        self.monitors.close(reason)
        self._annotated.close()
        self._metrics.close()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until somebody listens: no monitors, nobody who hears captions."""
        return not (self.monitors.watched or self.captioner.listened)

    def tick(self) -> None:
        """Do what is due; call it often."""
        self._change_monitors()
        self.monitors.tick()
        self.captioner.tick()
        self._annotated.tick(self._cameras)
        self._metrics.tick(self._cameras)
        self._memory.tick(self._model)

    def _caption_listeners(self) -> int:
        return self._annotated.listeners + self._memory.listeners

    def _change_monitors(self) -> None:
        """Watch with what the parameter's last change has read, if it was changed."""
        monitors = self._monitors_file.take_change()
        if monitors is not None:
            self.monitors.start(monitors, self._cameras)
            names = ", ".join(watch.name for watch in self.monitors.watches) or "none"
            self._node.get_logger().info(f"monitors: {names}")
