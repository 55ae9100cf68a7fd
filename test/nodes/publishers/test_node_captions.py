# SPDX-License-Identifier: Apache-2.0
"""Captions over DDS: what shows nothing new may be skipped."""

from __future__ import annotations

from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from mobilevlm_msgs.msg import Caption
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters


@pytest.fixture
def set_novelty(graph: Any, node: Any) -> Any:
    def put(value: float) -> None:
        wrapped = ParameterValue(type=3, double_value=value)
        request = SetParameters.Request(parameters=[Parameter(name="caption_novelty", value=wrapped)])
        assert graph.call(SetParameters, "/mobilevlm/set_parameters", request).results[0].successful

    yield put
    put(0.0)


class Listener:
    """Captions, by camera, and the counters of the diagnostics."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.captions: list[Caption] = []
        self.counters: dict[str, str] = {}
        self._subscriptions = [
            graph.node.create_subscription(Caption, "/mobilevlm/captions", self.captions.append, 20),
            graph.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10),
        ]

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == "mobilevlm: model":
                self.counters = {pair.key: pair.value for pair in status.values}

    def of(self, camera: str) -> list[Caption]:
        return [caption for caption in self.captions if caption.camera == camera]

    def skipped(self) -> int:
        return int(self.counters.get("captions_skipped", 0))

    def close(self) -> None:
        for subscription in self._subscriptions:
            self.graph.node.destroy_subscription(subscription)


def test_what_shows_nothing_new_is_skipped_but_not_for_a_new_listener(graph, node, set_novelty) -> None:
    set_novelty(1.0)  # from black to white: only the first picture of a camera is news
    first = Listener(graph)
    graph.until(lambda: first.of("photo"), "a caption of the photograph for the first listener")
    before = first.skipped()
    graph.until(lambda: first.skipped() >= before + 4, "pictures that were skipped")
    count = len(first.of("photo"))
    assert count <= 2  # one for whoever listened before, one for us
    second = Listener(graph)
    graph.until(lambda: second.of("photo"), "a caption for the second listener")
    set_novelty(0.0)
    graph.until(lambda: len(second.of("photo")) >= 3, "captions of every picture again")
    for listener in (first, second):
        listener.close()
