# SPDX-License-Identifier: Apache-2.0
"""The node's memory over DDS: what its camera showed is found again by another process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time_ns
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import SearchMemory

from mobilevlm_ros.cli import main
from mobilevlm_ros.client import AsyncAskImageClient
from mobilevlm_ros.memory.record import Query
from mobilevlm_ros.memory.search import Searcher
from mobilevlm_ros.memory.store import MemoryStore
from mobilevlm_ros.ros.stamps import to_message, to_nanoseconds
from mobilevlm_ros.simulation.questions import describe
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

NAME = "rememberer"
SEED = 3
TRUTH = describe(observe(sample_scene(SEED)).seen)
ODOMETRY = "/rememberer/odom"
MONITORS = "monitors:\n  - {name: ball, question: 'Is there a white ball?', rate: 0.5}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("memory")
    (made / "monitors.yaml").write_text(MONITORS)
    return made


@pytest.fixture(scope="module")
def remembering(graph: Any, nano: Path, folder: Path, second_node: Callable[..., Any]) -> Iterator[Any]:
    """A node that remembers what it sees: the scene of SEED."""
    camera = graph.start(
        "camera_node",
        {"seed": SEED, "rate": 5.0},
        "__node:=remembered",
        f"image:={NAME}/image",
        f"image/compressed:={NAME}/image/compressed",
    )
    parameters = {
        "bundle": nano,
        "caption_rate": 5.0,
        "caption_preempted": "resume",  # so that a busy machine makes some
        "max_age": 30.0,
        "monitors_file": folder / "monitors.yaml",
        "memory.enabled": True,
        "memory.file": folder / "memory.db",
        "memory.thumbnails": True,
        "memory.answers": True,
        "memory.odometry": ODOMETRY,
    }
    made = second_node(NAME, **parameters)
    yield made
    made.close()
    camera.stop()
    graph.children.remove(camera)


def search(node: Any, text: str = "", **fields: Any) -> Any:
    return node.client.search_memory(text, node=f"/{NAME}", **fields)


def found(graph: Any, node: Any, text: str, **fields: Any) -> Any:
    """The response, once something is found."""

    def look() -> Any:
        response = search(node, text, **fields)
        assert response.status.ok, response.status.message
        return response if response.matches else None

    return graph.until(look, f"a memory of {text!r}")


def test_what_the_camera_showed_is_found_with_its_header_and_picture(graph: Any, remembering: Any) -> None:
    asked = "where did you last see a white ball?"
    response = found(graph, remembering, asked, kind="caption", thumbnails=True)
    best = response.matches[0]
    assert (best.text, best.kind, best.camera) == (TRUTH, "caption", "")
    assert best.score > 0.9 and 0.5 < best.confidence <= 1
    assert best.header.frame_id == "camera_optical_frame" and best.position_frame == ""
    stamps = [to_nanoseconds(match.header.stamp) for match in response.matches]
    assert stamps == sorted(stamps, reverse=True) and stamps[-1] >= to_nanoseconds(response.oldest) > 0
    assert response.remembered >= len(response.matches)
    picture = cv2.imdecode(np.frombuffer(bytes(best.thumbnail.data), np.uint8), cv2.IMREAD_COLOR)
    truth = cv2.resize(observe(sample_scene(SEED)).image[..., ::-1], picture.shape[1::-1])
    assert np.abs(picture.astype(int) - truth).mean() < 12, "the picture that was described"
    assert search(remembering, "a purple elephant").matches == []


def test_the_robots_place_is_kept_and_found(graph: Any, remembering: Any) -> None:
    """The robot drives along y = -3 at 1 m/s."""
    start, node = time_ns(), graph.node
    reports: list[DiagnosticStatus] = []

    def report() -> DiagnosticStatus | None:
        return next((status for status in reversed(reports) if status.name == f"{NAME}: memory"), None)

    listening = node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: reports.extend(message.status), 10
    )
    graph.until(report, "what the memory says of itself")
    assert (
        report().level == DiagnosticStatus.WARN and f"nothing is published on {ODOMETRY}" in report().message
    )
    publisher = node.create_publisher(PoseWithCovarianceStamped, ODOMETRY, 1)

    def drive() -> None:
        message = PoseWithCovarianceStamped()
        message.header.frame_id, now = "map", time_ns()
        message.header.stamp = to_message(now)
        message.pose.pose.position.x, message.pose.pose.position.y = (now - start) / 1e9, -3.0
        publisher.publish(message)

    def look() -> Any:
        drive()
        matches = search(remembering, y=-3.0, x=500.0, radius=500.0, kind="caption").matches
        return matches[0] if matches else None

    match = graph.until(look, "a caption with its place")
    driven = (to_nanoseconds(match.header.stamp) - start) / 1e9
    assert match.position_frame == "map" and match.y == -3.0 and abs(match.x - driven) <= 0.5
    assert search(remembering, x=500.0, y=600.0, radius=500.0).matches == []
    graph.until(lambda: report().level == DiagnosticStatus.OK, "a memory that knows its place")
    values = {pair.key: pair.value for pair in report().values}
    assert int(values["kept"]) > 0 and values["dropped"] == "0" and int(values["records"]) > 0
    assert values["odometry"] == ODOMETRY and float(values["oldest_age_seconds"]) >= 0
    node.destroy_publisher(publisher)
    node.destroy_subscription(listening)


def test_monitors_and_answers_are_remembered(graph: Any, remembering: Any) -> None:
    (raised,) = found(graph, remembering, "a white ball", kind="monitor").matches
    assert raised.text == "ball: raised" and raised.confidence > 0.7
    asked = remembering.client.ask("What color is the traffic light?", wait_for_frame=30.0, timeout=60.0)
    assert asked.status.ok
    (answer,) = found(graph, remembering, "which color had the traffic light", kind="answer").matches
    assert answer.text == f"What color is the traffic light? {asked.answer}"
    assert answer.header == asked.header


def test_other_clients_find_the_same(
    graph: Any, remembering: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found(graph, remembering, "a white ball")

    async def ask() -> Any:
        async with AsyncAskImageClient(f"{NAME}/ask") as client:
            return await client.search_memory("a white ball", node=f"/{NAME}", limit=1, kind="caption")

    response = asyncio.run(ask())
    assert response.status.ok and response.matches[0].text == TRUTH
    sheet = tmp_path / "found.png"
    question = ["search", "a white ball", "--kind", "caption", "--ros", "--node", NAME]
    assert main([*question, "--json", "--sheet", str(sheet)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["text"] == TRUTH
    assert sheet.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"limit": 101}, "limit"), ({"kind": "video"}, "kind"), ({"radius": -1.0}, "radius"),
        ({"x": float("nan"), "radius": 1.0}, "x, y"), ({"text": "x" * 2001}, "text"),
    ],
)  # fmt: skip
def test_bad_requests_get_the_reason(
    graph: Any, remembering: Any, fields: dict[str, Any], named: str
) -> None:
    request = SearchMemory.Request(**fields)
    response = graph.call(SearchMemory, f"/{NAME}/search_memory", request)
    assert response.status.code == Status.INVALID_PARAMETER and named in response.status.message


def test_a_node_that_remembers_nothing_says_so(graph: Any, node: Any) -> None:
    status = graph.call(SearchMemory, "/mobilevlm/search_memory", SearchMemory.Request(text="a ball")).status
    assert status.code == Status.UNSUPPORTED and "memory.enabled:=true" in status.message


def test_the_memory_outlives_the_node(graph: Any, remembering: Any, folder: Path) -> None:
    """It is searched while the node rests, and goes on where it was."""
    found(graph, remembering, "a white ball")
    assert remembering.change(Transition.TRANSITION_DEACTIVATE)
    assert search(remembering, "a white ball").status.ok
    assert remembering.change(Transition.TRANSITION_CLEANUP)
    assert search(remembering, "a white ball").status.code == Status.NOT_ACTIVE
    assert "outside" in remembering.set("memory.file", "/etc/memory.db").reason
    assert remembering.set("memory.file", str(folder / "memory.db")).successful
    with MemoryStore(folder / "memory.db") as store:
        count, _ = store.size()
        assert Searcher(store).search(Query("white ball", kind="caption"))[0].record.shown == TRUTH
    assert remembering.change(Transition.TRANSITION_CONFIGURE)
    assert search(remembering, "a white ball").remembered == count
