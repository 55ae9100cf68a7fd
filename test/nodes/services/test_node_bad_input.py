# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in, the caller learns what was wrong with it, and the node keeps answering."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest

from mobilevlm_ros.client.client import AskImageClient

Ask = Callable[..., Any]


def image(**change: Any) -> Image:
    fields = {"width": 4, "height": 4, "encoding": "rgb8", "step": 12, "data": bytes(48), **change}
    return Image(**fields)


def compressed(pixels: np.ndarray, kind: str = ".jpg") -> CompressedImage:
    return CompressedImage(format=kind[1:], data=cv2.imencode(kind, pixels)[1].tobytes())


@pytest.fixture
def refused(ask: Ask) -> Iterator[Callable[..., str]]:
    """Ask what must be refused with a code; the message. Afterwards the node must answer as before."""

    def put(code: int, question: str = "Is it?", **fields: Any) -> str:
        response = ask(question, **{"wait_for_frame": 0.0, **fields})
        assert response.status.code == code, response.status
        assert response.answer == "" and response.confidence == 0
        assert len(response.status.message) > 20
        return str(response.status.message)

    yield put
    assert ask().status.code == Status.OK


@pytest.mark.parametrize(
    ("question", "what"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("x" * 10_000, "10000 characters"),
        ("is\x07it", "U+0007"),
        ("\x1b[2J", "U+001B"),
        ("an <image> here", "<image>"),
    ],
)
def test_questions_that_cannot_be_asked(refused, question: str, what: str) -> None:
    assert what in refused(Status.INVALID_QUESTION, question)


def test_emoji_are_a_question_too(ask: Ask) -> None:
    assert ask("\U0001f697\U0001f6a6?").status.code == Status.OK


def test_a_question_longer_than_the_context(refused) -> None:
    taxis = "\U0001f695" * 1900  # four tokens each
    assert "shorten the question" in refused(Status.CONTEXT_OVERFLOW, taxis, wait_for_frame=5.0)


@pytest.mark.parametrize("choices", [["one"], ["a", "A"], ["a", ""], [str(i) for i in range(100)]])
def test_choices_that_cannot_be_chosen_from(refused, choices: list[str]) -> None:
    assert "choice" in refused(Status.INVALID_QUESTION, choices=choices)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", 2.5),
        ("top_p", 0.0),
        ("top_p", math.nan),
        ("repetition_penalty", 9.0),
        ("max_tokens", 4_000_000_000),
        ("max_age", math.nan),
        ("timeout", math.inf),
        ("wait_for_frame", -1.0),
        ("wait_for_frame", 1e30),
        ("abstain_threshold", 1.5),
        ("stop", [""]),
    ],
)
def test_fields_out_of_range_are_named(refused, name: str, value: Any) -> None:
    assert name in refused(Status.INVALID_PARAMETER, **{name: value})


def test_a_name_of_a_megabyte_is_not_sent_back(refused) -> None:
    for code, fields in (
        (Status.UNKNOWN_CAMERA, {"camera": "x" * 1_000_000}),
        (Status.INVALID_PARAMETER, {"preset": "x" * 1_000_000}),
        (Status.INVALID_QUESTION, {"choices": ["x" * 1_000_000]}),
    ):
        message = refused(code, **fields)
        assert len(message) <= 500 and "xxx ... " in message


def test_an_unknown_camera(refused) -> None:
    message = refused(Status.UNKNOWN_CAMERA, camera="rear")
    assert "'rear'" in message and "'photo'" in message


def test_a_camera_that_nobody_publishes(refused) -> None:
    message = refused(Status.NO_FRAME, camera="silent")
    assert "/silent/image" in message and "nothing publishes" in message


def test_waiting_for_a_frame_ends(refused) -> None:
    refused(Status.NO_FRAME, camera="silent", wait_for_frame=0.2)


def test_a_stale_frame(graph, refused, node) -> None:
    publisher = graph.node.create_publisher(Image, "/odd/image", 1)
    graph.until(lambda: publisher.get_subscription_count(), "the node's subscription")
    old = image()
    old.header.stamp.sec = 1000
    seen = []

    def stale() -> bool:
        publisher.publish(old)
        seen[:] = [graph.client.ask("Is it?", camera="odd", max_age=1.0)]
        return seen[0].status.code == Status.STALE_FRAME

    graph.until(stale, "STALE_FRAME")
    assert "use_sim_time" in seen[0].status.message
    assert graph.client.ask("Is it?", camera="odd", max_age=-1.0, max_tokens=1).status.code == Status.OK
    graph.node.destroy_publisher(publisher)


def test_a_malformed_image_on_a_topic(graph, refused, ask: Ask) -> None:
    publisher = graph.node.create_publisher(Image, "/odd/image", 1)
    graph.until(lambda: publisher.get_subscription_count(), "the node's subscription")
    bad = image(step=5)
    seen = []

    def invalid() -> bool:
        bad.header.stamp = graph.node.get_clock().now().to_msg()
        publisher.publish(bad)
        seen[:] = [ask(camera="odd", wait_for_frame=0.0)]
        return seen[0].status.code == Status.INVALID_IMAGE

    graph.until(invalid, "INVALID_IMAGE")
    assert "/odd/image" in seen[0].status.message and "step 5" in seen[0].status.message

    def well_again() -> bool:
        publisher.publish(image())
        return ask(camera="odd", max_tokens=1).status.code == Status.OK

    graph.until(well_again, "an answer about a good image")
    graph.node.destroy_publisher(publisher)


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        (image(encoding="rgb9"), "rgb9"),
        (image(step=1), "step 1"),
        (image(step=13), "does not fit"),
        (image(width=0, height=0, step=0, data=b""), "empty"),
        (image(data=b"", encoding="mono8"), "0 bytes"),
        (image(height=4_000_000_000), "more than"),
    ],
)
def test_malformed_images_in_the_request(refused, sent: Image, what: str) -> None:
    assert what in refused(Status.INVALID_IMAGE, image=sent)


def test_malformed_compressed_images_in_the_request(refused) -> None:
    for data in (b"nonsense", compressed(np.zeros((64, 64, 3), np.uint8)).data[:-30]):
        refused(Status.INVALID_IMAGE, compressed_image=CompressedImage(format="jpeg", data=bytes(data)))


def test_a_stamp_before_all_time_comes_back_as_it_was(ask: Ask) -> None:
    strange = image()
    strange.header.stamp.sec, strange.header.stamp.nanosec = -7, 500_000_000
    response = ask(image=strange, max_tokens=1)
    assert response.status.code == Status.OK and response.header.stamp == strange.header.stamp


def test_two_pictures_at_once(refused) -> None:
    both = {"image": image(), "compressed_image": compressed(np.zeros((8, 8, 3), np.uint8))}
    assert "at most one" in refused(Status.INVALID_PARAMETER, **both)


def test_a_region_outside_of_the_picture(refused) -> None:
    roi = RegionOfInterest(x_offset=2, y_offset=2, width=3, height=1)
    assert "4x4" in refused(Status.INVALID_PARAMETER, image=image(), roi=roi)


def test_the_smallest_and_a_very_large_picture_are_answered(ask: Ask) -> None:
    smallest = image(width=1, height=1, step=3, data=bytes(3))
    assert ask(image=smallest).status.code == Status.OK
    largest = compressed(np.zeros((6000, 8000, 3), np.uint8))
    assert ask(compressed_image=largest).status.code == Status.OK


def test_a_request_that_takes_too_long(endless) -> None:
    with AskImageClient("endless/ask_image") as client:
        response = client.ask("Is it?", max_tokens=100, max_age=-1.0, wait_for_frame=20.0, timeout=60.0)
        assert response.status.code == Status.OK and response.finish_reason == "length"
        response = client.ask("Is it?", max_tokens=1500, max_age=-1.0, timeout=0.3)
        assert response.status.code == Status.TIMEOUT and response.finish_reason == "timeout"
        assert "allow more time" in response.status.message
        assert client.ask("Is it?", max_tokens=4, max_age=-1.0).status.code == Status.OK


def test_more_questions_than_fit_the_queue(graph, ask: Ask) -> None:
    """Each gets an answer or BUSY, none is lost, and the node goes on."""
    client = graph.node.create_client(AskImage, "ask_image", qos_profile=QoSProfile(depth=100))
    assert client.wait_for_service(60.0)
    request = AskImage.Request(question="Is it?", max_age=-1.0, max_tokens=4)
    futures = [client.call_async(request) for _ in range(50)]
    graph.until(lambda: all(future.done() for future in futures), "50 responses")
    codes = [future.result().status.code for future in futures]
    assert set(codes) <= {Status.OK, Status.BUSY} and Status.OK in codes
    graph.node.destroy_client(client)
    assert ask().status.code == Status.OK
