# SPDX-License-Identifier: Apache-2.0
"""What happens to a node in the field: cameras that change and come and go, no descriptors, kill -9."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import pytest
from fixtures.graph import LIMIT
from mobilevlm_msgs.msg import Status
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.client import AskImageClient
from mobilevlm_ros.demo.node_process import Child
from mobilevlm_ros.errors import NodeGone
from mobilevlm_ros.ros.stamps import to_nanoseconds

NAME = "survivor"
QUESTION = "Is there a ball?"
SIZES = {
    "rgb8": (640, 480),
    "bgr8": (320, 240),
    "mono8": (1280, 720),
    "yuv422_yuy2": (64, 64),
    "bgra8": (33, 17),
}


def start() -> Child:
    """In a namespace, so that its successor has the same names without the session's node noticing."""
    parameters = {"threads": 1, "transport": "auto"}
    remappings = [f"__ns:=/{NAME}", f"__node:={NAME}"]
    return Child(NAME, "mobilevlm_ros.nodes.mobilevlm_node", parameters, os.environ, remappings)


@pytest.fixture(scope="module")
def survivor(any_bundle: Path) -> Iterator[list[Child]]:
    running = [start()]
    yield running
    running[-1].stop()


@pytest.fixture(scope="module")
def client() -> Iterator[AskImageClient]:
    made = AskImageClient(f"/{NAME}/ask_image")
    yield made
    made.close()


def picture(client: AskImageClient, encoding: str) -> Image:
    width, height = SIZES[encoding]
    depth = {"rgb8": 3, "bgr8": 3, "mono8": 1, "yuv422_yuy2": 2, "bgra8": 4}[encoding]
    message = Image(width=width, height=height, encoding=encoding, step=width * depth)
    message.data = bytes(np.full(height * width * depth, 120, np.uint8))
    message.header.frame_id = f"optical_{encoding}"
    message.header.stamp = client.node.get_clock().now().to_msg()
    return message


def answered(client: AskImageClient, publish: Callable[[], Any], frame_id: str) -> Any:
    """The first answer about a frame of that name, which `publish` sends again and again."""
    end = monotonic() + LIMIT
    while monotonic() < end:
        publish()
        response = client.ask(QUESTION, choices=["yes", "no"], timeout=LIMIT, max_age=5.0)
        if response.status.ok and response.header.frame_id == frame_id:
            return response
    pytest.fail(f"no answer about {frame_id}: {response.status}")


def test_size_and_encoding_change_in_the_middle_and_each_answer_is_about_its_frame(survivor, client) -> None:
    raw = client.node.create_publisher(Image, f"/{NAME}/image", 2)
    sent: dict[int, str] = {}

    def publish(encoding: str) -> None:
        message = picture(client, encoding)
        sent[to_nanoseconds(message.header.stamp)] = encoding
        raw.publish(message)

    for encoding in [*SIZES, "rgb8"]:
        response = answered(client, lambda e=encoding: publish(e), f"optical_{encoding}")
        assert sent[to_nanoseconds(response.header.stamp)] == encoding
    client.node.destroy_publisher(raw)


def test_a_camera_that_stops_is_stale_and_answered_about_when_it_returns_as_another_kind(
    survivor, client
) -> None:
    end = monotonic() + LIMIT
    while (status := client.ask(QUESTION, timeout=LIMIT, max_age=1.0).status).code != Status.STALE_FRAME:
        assert monotonic() < end, status
        client.spin(0.2)
    compressed = client.node.create_publisher(CompressedImage, f"/{NAME}/image/compressed", 2)
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()

    def publish() -> None:
        message = CompressedImage(format="jpeg", data=jpeg)
        message.header.frame_id = "optical_jpeg"
        message.header.stamp = client.node.get_clock().now().to_msg()
        compressed.publish(message)

    assert answered(client, publish, "optical_jpeg").answer in ("yes", "no")
    client.node.destroy_publisher(compressed)


def test_without_descriptors_questions_are_answered_or_refused_and_afterwards_all_is_well(
    survivor, client
) -> None:
    pid = survivor[-1].process.pid
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}})
    typed = {"image": np.full((32, 32, 3), 90, np.uint8), "timeout": LIMIT, "max_tokens": 16}
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    held = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (held, before[1]))
    try:
        # A new format is tried in a process, whose pipes need descriptors.
        refused = client.ask("What is it?", answer_format="json", json_schema=schema, **typed)
        assert refused.status.code in (Status.INTERNAL_ERROR, Status.BUSY), refused.status
        assert "Too many open files" in refused.status.message or refused.status.code == Status.BUSY
        assert client.ask(QUESTION, choices=["yes", "no"], **typed).status.ok
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert client.ask("What is it?", answer_format="json", json_schema=schema, **typed).status.code in (
        Status.OK,
        Status.UNSUPPORTED,  # no llguidance here
        Status.INVALID_PARAMETER,  # 16 tokens may be too few for a document
    )
    assert survivor[-1].process.poll() is None


def test_killed_and_started_again_it_answers_the_same_client(survivor, client) -> None:
    grey = np.full((32, 32, 3), 90, np.uint8)
    assert client.ask(QUESTION, image=grey, choices=["yes", "no"], timeout=LIMIT).status.ok
    survivor[-1].process.kill()
    survivor[-1].stop()
    survivor.append(start())
    end = monotonic() + LIMIT
    while True:
        try:
            response = client.ask(QUESTION, image=grey, choices=["yes", "no"], timeout=LIMIT)
        except NodeGone:  # it was put to the one that is gone
            assert monotonic() < end
            continue
        break
    assert response.status.ok and response.answer in ("yes", "no")
