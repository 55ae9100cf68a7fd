# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says about the node: one status for the model, one for each camera."""

from __future__ import annotations

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from mobilevlm_msgs.msg import Status
from rclpy.node import Node

from mobilevlm_ros.nodes.cameras import Camera
from mobilevlm_ros.nodes.captions import Captioner
from mobilevlm_ros.nodes.reception import Reception, Situation


def report(
    node: Node, situation: Situation, reception: Reception, captioner: Captioner | None
) -> DiagnosticArray:
    """The message for /diagnostics; the node's name goes before the names of its statuses."""
    statuses = [_model_status(node, situation, reception, captioner)]
    statuses += [_camera_status(node, camera) for camera in situation.cameras.values()]
    message = DiagnosticArray(status=statuses)
    message.header.stamp = node.get_clock().now().to_msg()
    return message


def _model_status(
    node: Node, situation: Situation, reception: Reception, captioner: Captioner | None
) -> DiagnosticStatus:
    state, model = situation.status, situation.model
    status = DiagnosticStatus(name=f"{node.get_name()}: model", hardware_id="")
    values: dict[str, object] = {}
    if state.code == Status.OK:
        status.level, status.message = DiagnosticStatus.OK, "answering"
    elif state.code == Status.NOT_ACTIVE:
        status.level, status.message = DiagnosticStatus.WARN, state.message
    else:
        status.level, status.message = DiagnosticStatus.ERROR, state.message
    if model is not None:
        status.hardware_id = model.runtime.backend_name
        values |= {
            "model_id": model.model_id,
            "bundle": model.runtime.bundle.path,
            "backend": model.runtime.backend_name,
            "backend_reason": model.runtime.reason,
            "load_seconds": f"{model.loaded.load_seconds:.2f}",
            "queued": model.worker.queued,
            "queue_size": model.worker.capacity,
        }
    values |= {f"questions_{name}": value for name, value in vars(reception.counts).items()}
    if captioner is not None:
        values |= {"captions": captioner.made, "captions_dropped": captioner.dropped}
    if reception.last_latency is not None:
        values["last_latency_seconds"] = f"{reception.last_latency:.3f}"
    status.values = _pairs(values.items())
    return status


def _camera_status(node: Node, camera: Camera) -> DiagnosticStatus:
    age, publishers = camera.age(), camera.publishers
    max_age = node.get_parameter("max_age").value
    status = DiagnosticStatus(
        name=f"{node.get_name()}: camera {camera.name}".rstrip(), hardware_id=camera.name
    )
    if age is None:
        status.level = DiagnosticStatus.WARN
        status.message = camera.trouble()
    elif 0 <= max_age < age:
        status.level, status.message = DiagnosticStatus.WARN, f"newest frame is {age:.1f} s old"
    else:
        status.level, status.message = DiagnosticStatus.OK, "receiving"
    status.values = _pairs(
        {
            "topic": camera.topic,
            "publishers": publishers,
            "frame_age_seconds": "" if age is None else f"{age:.3f}",
            "frames_taken": camera.counters.taken,
            "frames_invalid": camera.counters.invalid,
            "frames_stale": camera.counters.stale,
            "frames_lost": camera.lost,
        }.items()
    )
    return status


def _pairs(items: Iterable[tuple[str, object]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=str(value)) for key, value in items]
