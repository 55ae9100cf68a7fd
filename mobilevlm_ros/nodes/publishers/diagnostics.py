# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says about the node: the model, its load, each camera, each monitor, the memory.

Levels: OK works; WARN works less well than configured, or a person should look; ERROR does not work, or a
monitor of that severity is raised; STALE has not been at work yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from mobilevlm_msgs.msg import Status
from rclpy.node import Node

from mobilevlm_ros.inference.job import Priority
from mobilevlm_ros.inference.monitoring.hysteresis import State
from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.host_metrics import hottest, resident_memory
from mobilevlm_ros.nodes.model_manager import ModelManager
from mobilevlm_ros.nodes.node_memory import NodeMemory
from mobilevlm_ros.nodes.node_state import NodeState
from mobilevlm_ros.nodes.odometry import Odometry
from mobilevlm_ros.nodes.publishers.monitors import Watch
from mobilevlm_ros.nodes.publishers.periodic import PeriodicPublishers
from mobilevlm_ros.nodes.services.ask_server import AskServer
from mobilevlm_ros.nodes.services.memory_server import MemoryServer
from mobilevlm_ros.ros.status import name_of

SATURATED = 0.95
"""Share of the time in which the inference thread works, above which something has to wait all the time."""

_SEVERITY = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


def report(
    node: Node,
    node_state: NodeState,
    ask_server: AskServer,
    periodic: PeriodicPublishers | None,
    memory: MemoryServer,
    bundle_change: str = "",
) -> DiagnosticArray:
    """The message for /diagnostics; the node's full name goes before the names of its statuses.

    `bundle_change` says that the bundle on the disk is no longer the one that answers.
    """
    prefix = node.get_fully_qualified_name().lstrip("/")
    statuses = [_model_status(prefix, node_state, ask_server, periodic)]
    if bundle_change and statuses[0].level == DiagnosticStatus.OK:
        statuses[0].level, statuses[0].message = DiagnosticStatus.WARN, bundle_change
    faults = 0 if node_state.model is None else node_state.model.scheduler.faults
    statuses[0].values += _pairs({"faults": faults + getattr(node, "callback_faults", 0)}.items())
    if periodic is not None and node_state.model is not None:
        statuses.append(_load_status(prefix, node_state.model, periodic))
        max_age = node.get_parameter("max_age").value
        statuses += [_camera_status(prefix, camera, max_age) for camera in node_state.cameras.values()]
        statuses += [_monitor_status(prefix, watch) for watch in periodic.monitors.watches]
    if memory.memory is not None:
        now_ns = int(node.get_clock().now().nanoseconds)
        statuses.append(_memory_status(prefix, memory.memory, memory.odometry, now_ns))
    message = DiagnosticArray(status=statuses)
    message.header.stamp = node.get_clock().now().to_msg()
    return message


def _model_status(
    prefix: str, node_state: NodeState, ask_server: AskServer, periodic: PeriodicPublishers | None
) -> DiagnosticStatus:
    state, model = node_state.status, node_state.model
    values: dict[str, object] = {}
    if state.code == Status.OK:
        level, text = DiagnosticStatus.OK, "answering"
    elif state.code == Status.NOT_ACTIVE:
        level, text = DiagnosticStatus.WARN, state.message
    else:
        level, text = DiagnosticStatus.ERROR, state.message
    backend = ""
    if model is not None:
        loaded = model.loaded
        backend = loaded.runtime.backend_name
        values |= {
            "model_id": loaded.model_id,
            "bundle": loaded.runtime.bundle.path,
            "backend": backend,
            "backend_reason": loaded.runtime.reason,
            "backend_fallbacks": "; ".join(loaded.runtime.fallbacks),
            "load_seconds": f"{loaded.load_seconds:.2f}",
            "sessions": len(loaded.sessions),
        }
    values |= {f"questions_{name}": value for name, value in vars(ask_server.counts).items()}
    if periodic is not None:
        captioner, monitors = periodic.captioner, periodic.monitors
        values |= {
            "captions": captioner.made,
            "captions_dropped": captioner.dropped,
            "captions_skipped": captioner.skipped,
            "monitor_evaluations": monitors.evaluations,
            "monitor_batches_dropped": monitors.dropped,
        }
    if ask_server.last_latency is not None:
        values["last_latency_seconds"] = f"{ask_server.last_latency:.3f}"
    return _status(f"{prefix}: model", backend, level, text, values)


def _load_status(prefix: str, model: ModelManager, periodic: PeriodicPublishers) -> DiagnosticStatus:
    statistics, scheduler = periodic.statistics, model.scheduler
    waiting, load = scheduler.waiting(Priority.QUESTION), statistics.utilization
    level, text = DiagnosticStatus.OK, "keeping up"
    if waiting >= scheduler.capacity:
        level = DiagnosticStatus.WARN
        text = f"{waiting} questions wait: more are refused; ask less often, or raise queue_size"
    elif load > SATURATED:
        level = DiagnosticStatus.WARN
        text = f"the model works {load:.0%} of the time: lower the rates of captions and monitors"
    values = {
        "queue": scheduler.queued,
        "queue_questions": waiting,
        "queue_size": scheduler.capacity,
        "utilization": _number(load, 2),
        "first_token_seconds_p50": _number(statistics.first_token(50), 3),
        "first_token_seconds_p95": _number(statistics.first_token(95), 3),
        "answer_seconds_p50": _number(statistics.total(50), 3),
        "answer_seconds_p95": _number(statistics.total(95), 3),
        "encode_seconds_p50": _number(statistics.encode, 3),
        "prefill_tokens_per_second": _number(statistics.prefill_rate, 0),
        "decode_tokens_per_second": _number(statistics.decode_rate, 1),
        "memory_mb": f"{resident_memory() / 2**20:.0f}",
        "temperature_celsius": _number(hottest(), 1),
    }
    return _status(f"{prefix}: load", model.loaded.runtime.backend_name, level, text, values)


def _camera_status(prefix: str, camera: Camera, max_age: float) -> DiagnosticStatus:
    age, wrong = camera.age(), camera.problem(max_age)
    level = DiagnosticStatus.WARN if wrong else DiagnosticStatus.OK
    values = {
        "topic": camera.topic,
        "publishers": camera.publishers,
        "frame_age_seconds": "" if age is None else f"{age:.3f}",
        "frames_taken": camera.counters.taken,
        "frames_invalid": camera.counters.invalid,
        "frames_stale": camera.counters.stale,
        "frames_lost": camera.lost,
    }
    return _status(
        f"{prefix}: camera {camera.name}".rstrip(), camera.name, level, wrong or "receiving", values
    )


def _monitor_status(prefix: str, watch: Watch) -> DiagnosticStatus:
    monitor, state = watch.monitor, watch.state
    level = DiagnosticStatus.OK
    text = f"{state.name.lower()}: {monitor.question}"
    if watch.status.code == Status.UNKNOWN:
        level, text = DiagnosticStatus.STALE, watch.status.message
    elif watch.status.code != Status.OK:
        level, text = DiagnosticStatus.WARN, f"not known: {watch.status.message}"
    elif state is State.RAISED:
        level = _SEVERITY[monitor.severity]
    elif state is State.UNKNOWN:
        text = f"not held long enough yet: {monitor.question}"
    values = {
        "state": state.name,
        "status": name_of(watch.status.code),
        "probability": _number(watch.probability, 3),
        "since": f"{watch.gate.since_ns / 1e9:.3f}" if watch.gate.since_ns else "",
        "threshold_up": monitor.threshold_up,
        "threshold_down": monitor.threshold_down,
        "hold_time": monitor.hold_time,
    }
    return _status(f"{prefix}: monitor {watch.name}", watch.camera.name, level, text, values)


def _memory_status(
    prefix: str, memory: NodeMemory, odometry: Odometry | None, now_ns: int
) -> DiagnosticStatus:
    held, trouble = memory.held, memory.problem or ("" if odometry is None else odometry.trouble)
    level = DiagnosticStatus.WARN if trouble else DiagnosticStatus.OK
    values = {
        "file": memory.path,
        "records": held.records,
        "mb": f"{held.nbytes / 2**20:.1f}",
        "oldest_age_seconds": f"{(now_ns - held.oldest_ns) / 1e9:.0f}" if held.records else "",
        "kept": memory.kept,
        "waiting": memory.waiting,
        "dropped": memory.dropped,
        "odometry": "" if odometry is None else odometry.topic,
    }
    return _status(f"{prefix}: memory", "", level, trouble or "remembering", values)


def _status(
    name: str, hardware: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name, hardware_id=hardware, level=level, message=message, values=_pairs(values.items())
    )


def _number(value: float, digits: int) -> str:
    """Empty where there is nothing to tell."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _pairs(items: Iterable[tuple[str, object]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=str(value)) for key, value in items]
