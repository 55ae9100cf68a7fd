# SPDX-License-Identifier: Apache-2.0
"""Captions of what the cameras show, made while somebody listens and nobody asks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from mobilevlm_msgs.msg import Caption
from rclpy.node import Node
from std_msgs.msg import String

from mobilevlm_ros.errors import Busy, MobileVLMError, RequestCancelled
from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.inference.monitoring.novelty import NoveltyGate
from mobilevlm_ros.inference.types import Answer, Frame
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.model_manager import LoadedBundle, ModelManager
from mobilevlm_ros.nodes.services.responses import header_of, latency_message
from mobilevlm_ros.ros.status import Refused


@dataclass(frozen=True)
class _Made:
    """A caption of a frame, and the model that made it."""

    frame: Frame
    answer: Answer
    loaded: LoadedBundle


@dataclass
class _Subject:
    """A camera and where its captioning stands."""

    camera: Camera
    due: float = 0.0  # monotonic
    running: bool = False
    last: _Made | None = None
    gate: NoveltyGate = field(default_factory=NoveltyGate)


class Captioner:
    """Publishes ~/captions, and ~/caption_text for programs without our messages. Created when the node is
    configured, at work while it is active.

    Attributes:
        made: captions published.
        dropped: captions that gave way to something more urgent, or found the queue full.
        skipped: pictures that showed nothing new.
        on_caption: called, on the inference thread, with each caption: frame, answer, model id.

    Args:
        statistics: is told about each caption.
        listeners: how many others want captions (of the annotated image, of the memory).
    """

    def __init__(
        self,
        node: Node,
        model: ModelManager,
        statistics: InferenceMetrics,
        listeners: Callable[[], int] = lambda: 0,
    ) -> None:
        self._node = node
        self._model = model
        self._statistics = statistics
        self._other_listeners = listeners
        self.on_caption: Callable[[Frame, Answer, str], None] | None = None
        self._captions = node.create_publisher(Caption, "~/captions", 10)
        self._texts = node.create_publisher(String, "~/caption_text", 10)
        self._subjects: dict[str, _Subject] = {}
        self._listened = 0
        self.made = self.dropped = self.skipped = 0

    def start(self, cameras: Mapping[str, Camera]) -> None:
        """Begin to caption these cameras."""
        self._subjects = {name: _Subject(camera) for name, camera in cameras.items()}

    def stop(self) -> None:
        """Publish nothing more."""
        self._subjects = {}

    def close(self) -> None:
        """Remove the topic."""
        self.stop()
        self._node.destroy_publisher(self._captions)
        self._node.destroy_publisher(self._texts)

    def latest(self, camera: str) -> tuple[Frame, Answer] | None:
        """The last caption of a camera, and the frame that it is about."""
        subject = self._subjects.get(camera)
        return None if subject is None or subject.last is None else (subject.last.frame, subject.last.answer)

    @property
    def listened(self) -> bool:
        """Whether somebody listened at the last tick."""
        return self._listened > 0

    def tick(self) -> None:
        """Submit what is due; call it often (it costs next to nothing)."""
        listened = sum(topic.get_subscription_count() for topic in (self._captions, self._texts))
        listened += self._other_listeners()
        if listened > self._listened:  # a new listener has not heard what was said before
            for subject in self._subjects.values():
                subject.gate.forget()
        self._listened = listened
        rate = self._node.get_parameter("caption_rate").value
        if rate <= 0 or not listened:
            return
        now = monotonic()
        for subject in self._subjects.values():
            if not subject.running and now >= subject.due:
                subject.due = now + 1.0 / rate
                self._submit(subject)

    def _submit(self, subject: _Subject) -> None:
        value = {name: self._node.get_parameter(name).value for name in _USED}
        submitted = monotonic()

        def work() -> Generator[str, None, _Made | None]:
            queued = monotonic() - submitted
            loaded = self._model.loaded
            frame = subject.camera.frame(value["max_age"])
            if subject.last is not None and frame is subject.last.frame:
                return None
            if not subject.gate.opens(frame.image, value["caption_novelty"]):
                self.skipped += 1
                return None
            answer = yield from loaded.assistant.caption(
                frame, value["caption_prompt"], value["caption_max_tokens"]
            )
            return _Made(frame, answer.with_queue_time(queued), loaded)

        def finished(future: Any) -> None:  # on the inference thread
            subject.running = False
            try:
                made = future.result()
                if made is not None:
                    subject.last = made
                    subject.gate.remember(made.frame.image)
                    self._statistics.work([made.answer])
                    self._publish(made, value["caption_prompt"], monotonic() - submitted)
            except (Busy, RequestCancelled):
                self.dropped += 1
            except Refused:
                pass  # no frame, or a stale one: diagnostics say so
            except MobileVLMError as error:
                self._node.get_logger().warning(f"no caption: {error}", throttle_duration_sec=10.0)
            except Exception as error:  # e.g. the context is shut down while we publish
                self._node.get_logger().error(f"caption failed: {error!r}", throttle_duration_sec=10.0)

        try:
            job = self._model.scheduler.submit(
                work,
                priority=Priority.CAPTION,
                source=subject.camera.name,
                resumable=value["caption_preempted"] == "resume",
            )
        except Busy:
            self.dropped += 1
            return
        subject.running = True
        job.future.add_done_callback(finished)

    def _publish(self, made: _Made, prompt: str, total: float) -> None:
        answer = made.answer
        if not self._subjects or not answer.text:
            return
        self.made += 1
        if self.on_caption is not None:
            self.on_caption(made.frame, answer, made.loaded.model_id)
        if self._texts.get_subscription_count():
            camera = made.frame.camera
            self._texts.publish(String(data=f"{camera}: {answer.text}" if camera else answer.text))
        self._captions.publish(
            Caption(
                header=header_of(made.frame),
                camera=made.frame.camera,
                prompt=prompt,
                text=answer.text,
                confidence=answer.confidence,
                calibrated=answer.calibrated,
                finish_reason=answer.finish_reason,
                generated_tokens=answer.generated_tokens,
                latency=latency_message(answer.latency, total),
                model_id=made.loaded.model_id,
            )
        )


_USED = ("caption_prompt", "caption_max_tokens", "caption_novelty", "caption_preempted", "max_age")
