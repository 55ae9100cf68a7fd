# SPDX-License-Identifier: Apache-2.0
"""Load and speed of the node on ~/metrics, while somebody listens."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from mobilevlm_msgs.msg import CameraMetrics, Metrics
from rclpy.node import Node
from std_msgs.msg import Header

from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.host_metrics import hottest, resident_memory
from mobilevlm_ros.nodes.model_manager import ModelManager
from mobilevlm_ros.nodes.publishers.captions import Captioner
from mobilevlm_ros.nodes.publishers.monitors import Monitors
from mobilevlm_ros.nodes.services.ask_server import AskServer

SAMPLE_PERIOD = 1.0
"""Seconds between samples of how busy the inference thread is."""


class MetricsReporter:
    """Publishes ~/metrics every `metrics_period` seconds."""

    def __init__(
        self,
        node: Node,
        model: ModelManager,
        ask_server: AskServer,
        captioner: Captioner,
        monitors: Monitors,
        statistics: InferenceMetrics,
    ) -> None:
        self._node = node
        self._model = model
        self._ask_server = ask_server
        self._captioner = captioner
        self._monitors = monitors
        self._statistics = statistics
        self._publisher = node.create_publisher(Metrics, "~/metrics", 10)
        self._sampled = self._published = 0.0  # monotonic

    def close(self) -> None:
        """Remove the topic."""
        self._node.destroy_publisher(self._publisher)

    def tick(self, cameras: Mapping[str, Camera]) -> None:
        """Sample and publish what is due; call it often."""
        now = monotonic()
        if now - self._sampled >= SAMPLE_PERIOD:
            self._sampled = now
            self._statistics.load(self._model.scheduler.busy_seconds)
        if now - self._published < self._node.get_parameter("metrics_period").value:
            return
        self._published = now
        if self._publisher.get_subscription_count():
            self._publisher.publish(self._measure(cameras))

    def _measure(self, cameras: Mapping[str, Camera]) -> Metrics:
        model, counts, statistics = self._model, self._ask_server.counts, self._statistics
        loaded = model.loaded
        return Metrics(
            header=Header(stamp=self._node.get_clock().now().to_msg()),
            model_id=loaded.model_id,
            backend=loaded.runtime.backend_name,
            questions_answered=counts.answered,
            questions_refused=counts.refused,
            questions_busy=counts.busy,
            questions_timed_out=counts.timed_out,
            questions_cancelled=counts.cancelled,
            captions=self._captioner.made,
            monitor_evaluations=self._monitors.evaluations,
            queue_length=model.scheduler.waiting(Priority.QUESTION) + self._ask_server.waiting,
            queue_capacity=model.scheduler.capacity,
            sessions=len(loaded.sessions),
            window=statistics.window,
            first_token_p50=statistics.first_token(50),
            first_token_p95=statistics.first_token(95),
            total_p50=statistics.total(50),
            total_p95=statistics.total(95),
            encode_p50=statistics.encode,
            prefill_rate=statistics.prefill_rate,
            decode_rate=statistics.decode_rate,
            utilization=statistics.utilization,
            memory_resident=resident_memory(),
            memory_device=loaded.runtime.device_memory(),
            temperature=hottest(),
            cameras=[self._camera(camera) for camera in cameras.values()],
        )

    def _camera(self, camera: Camera) -> CameraMetrics:
        age = camera.age()
        return CameraMetrics(
            camera=camera.name,
            topic=camera.topic,
            publishers=camera.publishers,
            frame_age=float("nan") if age is None else age,
            frames_taken=camera.counters.taken,
            frames_invalid=camera.counters.invalid,
            frames_stale=camera.counters.stale,
            frames_lost=camera.lost,
        )
