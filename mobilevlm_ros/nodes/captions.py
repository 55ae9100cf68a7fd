# SPDX-License-Identifier: Apache-2.0
"""Captions of what the cameras show, made while somebody listens and nobody asks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from mobilevlm_msgs.msg import Caption
from rclpy.node import Node
from sensor_msgs.msg import Image

from mobilevlm_ros.errors import Busy, MobileVLMError, RequestCancelled
from mobilevlm_ros.inference.assistant import with_queue_time
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.inference.worker import Priority
from mobilevlm_ros.nodes.annotate import BLUE, GREY, Line, overlay
from mobilevlm_ros.nodes.asking import header_of, latency_message
from mobilevlm_ros.nodes.cameras import Camera
from mobilevlm_ros.nodes.model import Model
from mobilevlm_ros.nodes.status import Refused


@dataclass
class _Subject:
    """A camera and where its captioning stands."""

    camera: Camera
    due: float = 0.0  # monotonic
    running: bool = False
    last: Frame | None = None


class Captioner:
    """Publishes ~/captions and ~/annotated_image. Created when the node is configured, at work while it is
    active.

    Attributes:
        made: captions published.
        dropped: captions that gave way to a question.

    Args:
        latest_exchange: gives the (question, answer) to show on the annotated image.
    """

    def __init__(
        self, node: Node, model: Model, latest_exchange: Callable[[], tuple[str, str] | None]
    ) -> None:
        self._node = node
        self._latest_exchange = latest_exchange
        self._model = model
        self._captions = node.create_publisher(Caption, "~/captions", 10)
        self._annotated = node.create_publisher(Image, "~/annotated_image", 1)
        self._subjects: list[_Subject] = []
        self.made = 0
        self.dropped = 0

    def start(self, cameras: Mapping[str, Camera]) -> None:
        """Begin to caption these cameras."""
        self._subjects = [_Subject(camera) for camera in cameras.values()]

    def stop(self) -> None:
        """Publish nothing more."""
        self._subjects = []

    def close(self) -> None:
        """Remove the topics."""
        self.stop()
        self._node.destroy_publisher(self._captions)
        self._node.destroy_publisher(self._annotated)

    def tick(self) -> None:
        """Submit what is due; call it often (it costs next to nothing)."""
        rate = self._node.get_parameter("caption_rate").value
        if rate <= 0 or not (self._wanted(self._captions) or self._wanted(self._annotated)):
            return
        now = monotonic()
        for subject in self._subjects:
            if not subject.running and now >= subject.due:
                subject.due = now + 1.0 / rate
                self._submit(subject)

    def _submit(self, subject: _Subject) -> None:
        prompt = self._node.get_parameter("caption_prompt").value
        limit = self._node.get_parameter("caption_max_tokens").value
        max_age = self._node.get_parameter("max_age").value
        submitted = monotonic()
        frames: list[Frame] = []
        loaded = self._model.loaded

        def work() -> Generator[str, None, Answer | None]:
            queued = monotonic() - submitted
            frame = subject.camera.frame(max_age)
            if frame is subject.last:
                return None  # nothing new to say
            frames.append(frame)
            answer = yield from loaded.assistant.caption(frame, prompt, limit)
            return with_queue_time(answer, queued)

        def finished(future: Any) -> None:  # on the inference thread
            subject.running = False
            try:
                answer = future.result()
                if answer is not None:
                    subject.last = frames[0]
                    self._publish(frames[0], prompt, answer, monotonic() - submitted, loaded.model_id)
            except (Busy, RequestCancelled):
                self.dropped += 1
            except Refused:
                pass  # no frame, or a stale one: diagnostics say so
            except MobileVLMError as error:
                self._node.get_logger().warning(f"no caption: {error}", throttle_duration_sec=10.0)
            except Exception as error:  # e.g. the context is shut down while we publish
                self._node.get_logger().error(f"caption failed: {error!r}", throttle_duration_sec=10.0)

        try:
            # Stale by the time a question is answered, so it does not resume; the next one sees a newer
            # frame.
            ticket = self._model.worker.submit(work, priority=Priority.CAPTION, resumable=False)
        except Busy:
            self.dropped += 1
            return
        subject.running = True
        ticket.future.add_done_callback(finished)

    def _publish(self, frame: Frame, prompt: str, answer: Answer, total: float, model_id: str) -> None:
        if not self._subjects or not answer.text:
            return
        self.made += 1
        self._captions.publish(
            Caption(
                header=header_of(frame),
                camera=frame.camera,
                prompt=prompt,
                text=answer.text,
                confidence=answer.confidence,
                finish_reason=answer.finish_reason,
                generated_tokens=answer.generated_tokens,
                latency=latency_message(answer.latency, total),
                model_id=model_id,
            )
        )
        if self._wanted(self._annotated):
            self._annotated.publish(self._annotate(frame, answer))

    def _annotate(self, frame: Frame, answer: Answer) -> Image:
        top: list[Line] = []
        exchange = self._latest_exchange()
        if exchange is not None:
            question, reply = exchange
            top = [Line(question, GREY), Line(reply, BLUE)]
        return image_message(
            frame, overlay(frame.image, top, [Line(f"{answer.text} ({answer.confidence:.2f})")])
        )

    def _wanted(self, publisher: Any) -> bool:
        return bool(publisher.get_subscription_count())


def image_message(frame: Frame, rgb: np.ndarray) -> Image:
    """sensor_msgs/Image (rgb8) of u8[H, W, 3] with a frame's header."""
    height, width = rgb.shape[:2]
    message = Image(header=header_of(frame), height=height, width=width, encoding="rgb8", step=width * 3)
    message.data = np.ascontiguousarray(rgb).tobytes()
    return message
