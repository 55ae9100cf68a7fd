# SPDX-License-Identifier: Apache-2.0
"""A loaded bundle at work: runtime, assistant, and the thread that runs them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from time import perf_counter

from rclpy.node import Node

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.worker import InferenceWorker
from mobilevlm_ros.nodes.parameters import LONGEST_QUESTION


@dataclass
class Model:
    """What `on_configure` makes and `on_cleanup` frees."""

    runtime: Runtime
    assistant: Assistant
    worker: InferenceWorker
    model_id: str
    load_seconds: float

    def close(self, timeout: float | None = None) -> bool:
        """End all work (each request gets CANCELLED); True if the inference thread ended within `timeout`
        seconds.
        """
        return self.worker.close(timeout)


def load_model(node: Node) -> Model:
    """Load the bundle that the parameters name.

    Raises:
        BundleError, EngineError: with the reason and what to do.
    """
    value = {name: node.get_parameter(name).value for name in _USED}
    start = perf_counter()
    runtime = load_runtime(
        value["bundle"] or None,
        backend=value["backend"],
        threads=value["threads"],
        spin=value["spin_threads"],
    )
    # Questions were checked against the live parameter before they get here; this is only its upper bound.
    assistant = Assistant(
        runtime, prefix_budget=value["prefix_cache_mb"] << 20, max_question=LONGEST_QUESTION
    )
    worker = InferenceWorker(capacity=value["queue_size"])
    return Model(runtime, assistant, worker, model_id(runtime), perf_counter() - start)


def model_id(runtime: Runtime) -> str:
    """Name and content hash of a bundle: its manifest holds the sha256 of each file, so its own hash covers
    all.
    """
    manifest = runtime.bundle.manifest
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return f"{manifest.name}@{digest[:12]}"


_USED = ("bundle", "backend", "threads", "spin_threads", "prefix_cache_mb", "queue_size")
