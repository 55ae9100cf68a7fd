# SPDX-License-Identifier: Apache-2.0
"""What the node does without being asked: captions, monitors, metrics, the annotated image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from mobilevlm_ros.errors import ConfigurationError
from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.inference.monitoring.monitors import Monitor, load_monitors, resolve
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.model_manager import ModelManager
from mobilevlm_ros.nodes.publishers.annotated_image import AnnotatedImages
from mobilevlm_ros.nodes.publishers.captions import Captioner
from mobilevlm_ros.nodes.publishers.metrics import MetricsReporter
from mobilevlm_ros.nodes.publishers.monitors import Monitors
from mobilevlm_ros.nodes.services.ask_server import AskServer


class PeriodicPublishers:
    """Made when the node is configured, at work while it is active. Belongs to the executor's thread.

    Attributes:
        statistics: of all answers, questions included.
        captioner, monitors: what they are.
    """

    def __init__(self, node: Node, model: ModelManager, ask_server: AskServer) -> None:
        self._node = node
        self._cameras: Mapping[str, Camera] = {}
        self._stale_file = False
        self.statistics = InferenceMetrics()
        self.captioner = Captioner(node, model, self.statistics, lambda: self._annotated.listeners)
        self.monitors = Monitors(node, model, self.statistics)
        self._annotated = AnnotatedImages(node, ask_server, self.captioner, self.monitors)
        self._metrics = MetricsReporter(
            node, model, ask_server, self.captioner, self.monitors, self.statistics
        )
        self._ask_server = ask_server
        ask_server.on_answer = self.statistics.question
        node.add_on_set_parameters_callback(self._on_set)

    def start(self, cameras: Mapping[str, Camera]) -> None:
        """Begin to work on these cameras."""
        self._cameras = cameras
        self._stale_file = False
        self.captioner.start(cameras)
        self.monitors.start(_configured(self._node), cameras)

    def stop(self, reason: str) -> None:
        """Rest; monitors tell the reason."""
        self._cameras = {}
        self.captioner.stop()
        self.monitors.stop(reason)

    def close(self, reason: str) -> None:
        """Remove the topics."""
        self._node.remove_on_set_parameters_callback(self._on_set)
        self._ask_server.on_answer = None
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
        if self._stale_file:
            self._stale_file = False
            self._reload_monitors()
        self.monitors.tick()
        self.captioner.tick()
        self._annotated.tick(self._cameras)
        self._metrics.tick(self._cameras)

    def _on_set(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Setting the monitors' file again, to the same path too, reads it again."""
        for change in changes:
            if change.name == "monitors_file" and self._cameras:
                try:
                    _monitors(change.value, self._node)
                except ConfigurationError as error:
                    return SetParametersResult(successful=False, reason=str(error))
                self._stale_file = True  # the parameter has its new value after this
        return SetParametersResult(successful=True)

    def _reload_monitors(self) -> None:
        try:
            self.monitors.start(_configured(self._node), self._cameras)
        except ConfigurationError as error:  # changed again since it was checked
            self._node.get_logger().error(f"the monitors stay as they are: {error}")
        else:
            names = ", ".join(watch.name for watch in self.monitors.watches) or "none"
            self._node.get_logger().info(f"monitors: {names}")


def problem(node: Node) -> str:
    """Why the monitors of the node's parameters cannot work; empty when they can."""
    try:
        _configured(node)
    except ConfigurationError as error:
        return str(error)
    return ""


def _configured(node: Node) -> list[Monitor]:
    return _monitors(node.get_parameter("monitors_file").value, node)


def _monitors(path: str, node: Node) -> list[Monitor]:
    return resolve(load_monitors(path), node.get_parameter("cameras").value) if path else []
