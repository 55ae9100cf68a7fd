# SPDX-License-Identifier: Apache-2.0
"""What the node publishes, and what the cameras do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from mobilevlm_msgs.msg import Caption
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb


@contextmanager
def heard(graph: Any, kind: Any, topic: str, qos: Any = 10) -> Iterator[list[Any]]:
    messages: list[Any] = []
    subscription = graph.node.create_subscription(kind, topic, messages.append, qos)
    yield messages
    graph.node.destroy_subscription(subscription)


def stamp(message: Any) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_captions_carry_the_header_of_their_picture(graph, node) -> None:
    with (
        heard(graph, Image, "image", qos_profile_sensor_data) as images,
        heard(graph, Caption, "/mobilevlm/captions") as captions,
    ):
        stamps = lambda: {stamp(image) for image in images}  # noqa: E731
        of_scene = lambda: [c for c in captions if c.camera == "" and stamp(c) in stamps()]  # noqa: E731
        caption = graph.until(of_scene, "a caption of a picture that we saw too")[0]
    assert caption.header.frame_id == "camera_optical_frame"
    assert caption.text and 0 < caption.confidence <= 1 and "@" in caption.model_id
    assert caption.latency.total > 0


def test_every_camera_is_captioned(graph, node) -> None:
    with heard(graph, Caption, "/mobilevlm/captions") as captions:
        graph.until(lambda: {"", "photo"} <= {c.camera for c in captions}, "captions of both cameras")


def test_captions_are_plain_text_too_for_who_listens_to_that_alone(graph, node) -> None:
    with heard(graph, String, "/mobilevlm/caption_text") as texts:
        of_photo = lambda: [text for text in texts if text.data.startswith("photo: ")]  # noqa: E731
        graph.until(lambda: of_photo() and len(of_photo()) < len(texts), "texts of both cameras")
        alone = len(texts)
        with heard(graph, Caption, "/mobilevlm/captions") as captions:
            told = lambda: {f"{c.camera}: {c.text}" if c.camera else c.text for c in captions}  # noqa: E731
            later = lambda: {text.data for text in texts[alone:]}  # noqa: E731
            graph.until(lambda: len(told() & later()) >= 1, "a caption that came as text too")


def test_the_annotated_image_is_the_picture_with_bands(graph, node) -> None:
    with heard(graph, Image, "/mobilevlm/annotated_image") as images:
        of_photo = lambda: [i for i in images if i.header.frame_id == "photo_optical_frame"]  # noqa: E731
        rgb = image_to_rgb(graph.until(of_photo, "an annotated photograph")[0])
    assert rgb.shape == (720, 1280, 3)


def test_diagnostics_tell_backend_cameras_and_counters(graph, node, ask) -> None:
    before = ask().status.code
    assert before == 1
    with heard(graph, DiagnosticArray, "/diagnostics") as arrays:
        ours = lambda: [a for a in arrays if any("mobilevlm:" in s.name for s in a.status)]  # noqa: E731
        status = {s.name: s for s in graph.until(ours, "diagnostics")[-1].status}
    model = {pair.key: pair.value for pair in status["mobilevlm: model"].values}
    assert status["mobilevlm: model"].level == DiagnosticStatus.OK
    assert model["backend"] == "onnxruntime-cpu" and "@" in model["model_id"]
    assert int(model["questions_answered"]) >= 1 and float(model["last_latency_seconds"]) > 0
    load = {pair.key: pair.value for pair in status["mobilevlm: load"].values}
    assert float(load["memory_mb"]) > 50 and load["queue_size"] == "16" and "temperature_celsius" in load
    assert float(load["first_token_seconds_p50"]) <= float(load["answer_seconds_p95"])
    assert float(load["prefill_tokens_per_second"]) > 0 and 0 <= float(load["utilization"]) <= 1
    silent = status["mobilevlm: camera silent"]
    assert silent.level == DiagnosticStatus.WARN and "nothing publishes /silent/image" in silent.message
    photo = {pair.key: pair.value for pair in status["mobilevlm: camera photo"].values}
    assert photo["topic"].startswith("/photo/image") and float(photo["frame_age_seconds"]) < 60


def test_both_transports_show_the_same_scene(graph, node, seed) -> None:
    with (
        heard(graph, Image, "image", qos_profile_sensor_data) as raw,
        heard(graph, CompressedImage, "image/compressed", qos_profile_sensor_data) as packed,
    ):

        def pair() -> Any:
            by_stamp = {stamp(message): message for message in packed}
            return [(message, by_stamp[stamp(message)]) for message in raw if stamp(message) in by_stamp]

        image, jpeg = graph.until(pair, "both transports of one picture")[0]
    assert image.header == jpeg.header and image.encoding == "rgb8" and image.step == 3 * image.width
    difference = np.abs(image_to_rgb(image).astype(int) - compressed_to_rgb(jpeg))
    assert difference.mean() < 6


def test_a_camera_that_only_publishes_compressed_images_is_found(graph, second_node, any_bundle) -> None:
    node = second_node("packed", bundle=any_bundle)
    publisher = graph.node.create_publisher(CompressedImage, "/packed/image/compressed", 1)
    picture = np.full((48, 64, 3), 120, np.uint8)
    import cv2

    message = CompressedImage(format="png", data=cv2.imencode(".png", picture)[1].tobytes())
    message.header.frame_id = "found"

    def answered() -> bool:
        message.header.stamp = graph.node.get_clock().now().to_msg()
        publisher.publish(message)
        response = node.client.ask("Is it?", wait_for_frame=0.1, max_age=-1.0, max_tokens=1, timeout=60.0)
        return response.status.code == 1 and response.header.frame_id == "found"

    try:
        graph.until(answered, "an answer about a compressed picture")
    finally:
        graph.node.destroy_publisher(publisher)
        node.close()


@pytest.mark.parametrize("parameter", ["photo:=/no/such/file.png", "rate:=0.0"])
def test_a_camera_that_cannot_start_says_why(graph, parameter: str) -> None:
    name, value = parameter.split(":=")
    child = graph.start("camera_node", {name: value}, "__node:=broken_camera")
    assert child.process.wait(60) == 1
    assert name in child.log()
    graph.children.remove(child)
    child.stop()
