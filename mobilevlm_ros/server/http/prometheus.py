# SPDX-License-Identifier: Apache-2.0
"""What Prometheus scrapes: requests, questions, latencies, tokens, load."""

from __future__ import annotations

import math
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mobilevlm_ros.server.api_error import ApiError
from mobilevlm_ros.server.services.service import Reply, ServiceStatus

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST

_OUTCOMES = {429: "busy", 499: "hung_up", 503: "busy", 504: "timeout"}


class ServerMetrics:
    """Collects in a registry of its own, so that several servers may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "mobilevlm_http_requests", "HTTP requests", ["handler", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "mobilevlm_http_request_seconds",
            "From a request's headers to the end of its response",
            ["handler"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._questions = Counter(
            "mobilevlm_questions", "Questions by how they ended", ["outcome"], registry=self.registry
        )
        self._parts = Histogram(
            "mobilevlm_answer_seconds",
            "Where the time of an answer went",
            ["part"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._tokens = Counter("mobilevlm_tokens", "Tokens of answers", ["kind"], registry=self.registry)
        self._load = Gauge(
            "mobilevlm_load",
            "Load and speed of the model, as it tells them",
            ["what"],
            registry=self.registry,
        )
        self._ready = Gauge("mobilevlm_ready", "1 when questions can be answered", registry=self.registry)
        self._model = Info("mobilevlm_model", "What answers", registry=self.registry)

    def request(self, handler: str, status: int, seconds: float) -> None:
        """A request ended; status 0: without any response."""
        self._requests.labels(handler, str(status)).inc()
        self._seconds.labels(handler).observe(seconds)

    def answered(self, reply: Reply, first_token: float) -> None:
        """A question was answered; its first text was there after `first_token` seconds."""
        self._questions.labels("answered").inc()
        answer, latency = reply.answer, reply.answer.latency
        parts: Mapping[str, float] = {
            "queue": latency.queue,
            "encode": latency.encode,
            "prefill": latency.prefill,
            "decode": latency.decode,
            "total": reply.total,
            "first_token": first_token,
        }
        for part, seconds in parts.items():
            self._parts.labels(part).observe(seconds)
        self._tokens.labels("prompt").inc(answer.prompt_tokens)
        self._tokens.labels("cached").inc(answer.reused_tokens)
        self._tokens.labels("generated").inc(answer.generated_tokens)

    def refused(self, error: ApiError) -> None:
        """A question ended without an answer."""
        default = "failed" if error.status >= 500 else "refused"
        self._questions.labels(_OUTCOMES.get(error.status, default)).inc()

    def hung_up(self) -> None:
        """Whoever asked went away."""
        self._questions.labels("hung_up").inc()

    def text(self, status: ServiceStatus) -> bytes:
        """Everything, in Prometheus' text format."""
        self._ready.set(status.ready)
        self._model.info({"model": status.model, "backend": status.backend})
        for name, value in status.numbers.items():
            self._load.labels(name).set(value if math.isfinite(value) else math.nan)
        return bytes(generate_latest(self.registry))
