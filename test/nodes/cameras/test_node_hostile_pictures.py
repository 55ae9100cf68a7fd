# SPDX-License-Identifier: Apache-2.0
"""Hostile pictures, by request and by topic: refused with a reason, while everybody else is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from fixtures.pictures import DAMAGES, HOSTILE, RGB, png, turned, whole
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.ros.images.messages import octets

Ask = Callable[..., Any]
KINDS = ["jpeg", "jpeg-progressive", "png", "webp"]


def packed(data: bytes, format_: str = "jpeg") -> CompressedImage:
    return CompressedImage(format=format_, data=octets(data))


@pytest.fixture(scope="module")
def slow() -> CompressedImage:
    """A picture of 67 megapixels without its last row, which shows only after 200 MB were counted."""
    return packed(png(8192, 8192, bytes(24577 * 8191)), "png")


def test_while_hostile_pictures_are_refused_another_question_is_answered(
    graph: Any, node: Any, ask: Ask, slow: CompressedImage
) -> None:
    assert ask(choices=["yes", "no"]).status.code == Status.OK
    client = graph.client_of(AskImage, "ask_image")
    assert graph.call(AskImage, "ask_image", AskImage.Request()).status.code == Status.INVALID_QUESTION
    question = AskImage.Request(question="Is it?", choices=["yes", "no"], max_age=-1.0, timeout=60.0)
    hostile = [
        client.call_async(AskImage.Request(question="Is it?", compressed_image=slow, timeout=60.0))
        for _ in range(5)
    ]
    honest = client.call_async(question)
    graph.until(honest.done, "the answer")
    assert honest.result().status.code == Status.OK, honest.result().status
    # Each takes about half a second of a thread, and two run at once: some are still under way.
    assert not all(future.done() for future in hostile)
    for future in hostile:
        graph.until(future.done, "a refusal")
        status = future.result().status
        assert status.code in (Status.INVALID_IMAGE, Status.TIMEOUT), status  # on a slow machine
        assert "of its pixels" in status.message or "in time" in status.message


def test_a_timeout_and_a_full_queue_are_statuses_too(graph: Any, node: Any, slow: CompressedImage) -> None:
    client = graph.client_of(AskImage, "ask_image")
    assert graph.call(AskImage, "ask_image", AskImage.Request()).status.code == Status.INVALID_QUESTION
    futures = [
        client.call_async(AskImage.Request(question="Is it?", compressed_image=slow, timeout=0.2))
        for _ in range(24)
    ]
    graph.until(lambda: all(future.done() for future in futures), "every response")
    codes = {future.result().status.code for future in futures}
    assert Status.TIMEOUT in codes and codes <= {Status.TIMEOUT, Status.BUSY, Status.INVALID_IMAGE}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_in_requests_are_refused(ask: Ask, graph: Any, name: str) -> None:
    def refused() -> Any:
        """None where a busy machine has given up the decoding after its 10 s."""
        response = ask(image=packed(HOSTILE[name]))
        return response if response.status.code != Status.TIMEOUT else None

    response = graph.until(refused, "a refusal")
    assert response.status.code == Status.INVALID_IMAGE, response.status
    assert len(response.status.message) < 500


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["tail lost, end kept", "a hole of zeros", "cut in the middle"])
def test_damaged_pictures_in_requests_are_refused(ask: Ask, kind: str, damage: str) -> None:
    response = ask(image=packed(DAMAGES[damage](whole(kind)), kind))
    assert response.status.code == Status.INVALID_IMAGE, response.status
    assert "not a picture that can be used" in response.status.message


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp-lossless"])
def test_a_turned_picture_is_asked_about_upright(ask: Ask, kind: str) -> None:
    stored = np.ascontiguousarray(np.rot90(RGB, 1))  # orientation 6 turns it back
    question = {"question": "What is on the left?", "choices": ["a cone", "a person", "a box", "nothing"]}
    odds = [
        list(ask(image=packed(data), **question).choice_probabilities)
        for data in (turned(kind, 6, stored), turned(kind, 1, RGB), turned(kind, 1, stored))
    ]
    assert odds[0] == pytest.approx(odds[1], abs=0.05 if kind == "jpeg" else 1e-5)
    assert odds[0] != pytest.approx(odds[2], abs=1e-3)


@pytest.fixture
def odd(graph: Any, node: Any) -> Iterator[Callable[[Any], None]]:
    """Publishes a picture, raw or compressed, to the camera 'odd' until the node looks at it."""
    made = {
        Image: graph.node.create_publisher(Image, "odd/image", 1),
        CompressedImage: graph.node.create_publisher(CompressedImage, "odd/image/compressed", 1),
    }
    chosen: list[Any] = []

    def show(message: Any) -> None:
        publisher = made[type(message)]
        for kind in [kind for kind in made if kind is not type(message)]:
            graph.node.destroy_publisher(made.pop(kind))
        chosen[:] = [publisher]
        graph.until(publisher.get_subscription_count, "the subscription to odd")
        publisher.publish(message)

    yield show
    for publisher in made.values():
        graph.node.destroy_publisher(publisher)


def test_damage_on_a_topic_is_refused_and_others_are_answered(ask: Ask, odd: Any, graph: Any) -> None:
    message = packed(DAMAGES["tail lost, end kept"](whole("jpeg")))

    def refused() -> bool:
        odd(message)
        response = ask(camera="odd", wait_for_frame=0.5, choices=["yes", "no"])
        assert ask(choices=["yes", "no"]).status.code == Status.OK
        return bool(response.status.code == Status.INVALID_IMAGE and "damaged" in response.status.message)

    graph.until(refused, "the refusal")


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (
            Image(
                width=60, height=40, step=120, encoding="16UC1", data=np.full((40, 60), 1200, "<u2").tobytes()
            ),
            "numbers, not a picture",
        ),
        (
            packed(
                cv2.imencode(".png", np.full((40, 60), 1200, np.uint16))[1].tobytes(),
                "16UC1; png compressed ",
            ),
            "numbers, not a picture",
        ),
        (
            Image(
                width=60,
                height=40,
                step=120,
                encoding="mono16",
                data=np.full((40, 60), 1200, "<u2").tobytes(),
            ),
            "nearly black",
        ),
    ],
    ids=["depth", "compressed depth", "twelve bits"],
)
def test_numbers_in_a_request_are_refused_with_the_remedy(ask: Ask, message: Any, what: str) -> None:
    response = ask(image=message, choices=["The road is empty.", "A person."])
    assert response.status.code == Status.INVALID_IMAGE
    assert what in response.status.message and "parameter encodings" in response.status.message


def test_the_parameter_says_how_to_read_them(second_node: Any, any_bundle: Any) -> None:
    second = second_node(
        "thermal", bundle=any_bundle, encodings="['16UC1=mono12', 'front: 8UC1=mono8']", self_test=False
    )
    try:
        heat = np.full((40, 60), 1200, "<u2")
        sent = Image(width=60, height=40, step=120, encoding="16UC1", data=heat.tobytes())
        grey = np.full((40, 60, 3), 1200 >> 4, np.uint8)
        told = [
            second.client.ask("Is it?", image=image, choices=["yes", "no"], timeout=60.0)
            for image in (sent, grey)
        ]
        assert [response.status.code for response in told] == [Status.OK, Status.OK], told[0].status
        assert list(told[0].choice_probabilities) == pytest.approx(
            list(told[1].choice_probabilities), abs=0.02
        )
        sent.encoding = "8UC1"
        assert second.client.ask("Is it?", image=sent).status.code == Status.INVALID_IMAGE
    finally:
        second.close()
