# SPDX-License-Identifier: Apache-2.0
"""What a question holds (a picture of megabytes) goes with its answer, however it ends.

Python's collector is switched off here: it would free what refers to itself in the end, after hundreds of
questions, and a busy node grew by 200 MiB until then.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from fixtures.in_process import LIMIT, InProcess
from mobilevlm_msgs.action import AskImage as AskAction
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from rclpy.action import ActionClient
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mobilevlm_ros.inference.job import Job
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.nodes.cameras.image_buffer import StampedImage
from mobilevlm_ros.nodes.services.ask_request import AskRequest
from mobilevlm_ros.nodes.services.ask_server import SERVICE_QOS
from mobilevlm_ros.nodes.services.pending_question import PendingQuestion, RequestContext
from mobilevlm_ros.ros.images.messages import image_message

HELD = {Job, PendingQuestion, AskRequest, RequestContext, Frame, StampedImage, AskImage.Request}
EACH = 2
"""Questions of a kind."""

CARRIED = image_message(np.full((48, 64, 3), 9, np.uint8), Header())
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (Status.OK, {}),
    "choices": (Status.OK, {"choices": ["yes", "no"]}),
    "typed": (Status.OK, {"answer_format": "integer", "minimum": 0.0, "maximum": 9.0}),
    "all cameras": (Status.OK, {"camera": "*"}),
    "with its own picture": (Status.OK, {"image": CARRIED}),
    "too late": (Status.TIMEOUT, {"image": CARRIED, "timeout": 1e-6}),
    "a stamp of nothing": (
        Status.FRAME_NOT_FOUND,
        {"stamp": Time(sec=5), "max_age": 0.1, "wait_for_frame": 0.0},
    ),
    "a bad field": (Status.INVALID_PARAMETER, {"temperature": 9.0}),
    "a bad picture": (Status.INVALID_IMAGE, {"image": Image(width=5, height=5, encoding="rgb8")}),
    "a broken picture": (Status.INVALID_IMAGE, {"compressed_image": CompressedImage(data=b"\xff\xd8no")}),
}


class Asking:
    """The node, a camera, and clients of the service and the action."""

    def __init__(self, bundle: Path) -> None:
        self.running = InProcess(bundle, "keeps", caption_rate=0.0, prefix_cache_mb=1)
        node = self.running.client.node
        self._camera = node.create_publisher(Image, "/keeps/image", 2)
        self._shown = 0
        node.create_timer(0.1, self._show)
        self._service = node.create_client(AskImage, "/keeps/ask_image", qos_profile=SERVICE_QOS)
        self._action = ActionClient(node, AskAction, "/keeps/ask")
        assert self._action.wait_for_server(LIMIT)
        assert self.put(Status.OK, {})

    def _show(self) -> None:
        self._shown += 1
        header = Header(stamp=self.running.client.node.get_clock().now().to_msg(), frame_id="optical")
        self._camera.publish(image_message(np.full((48, 64, 3), self._shown % 250, np.uint8), header))

    def _fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "question": "What is it?",
            "max_tokens": 4,
            "wait_for_frame": 30.0,
            "timeout": LIMIT,
            **fields,
        }

    def _until(self, done: Callable[[], Any]) -> None:
        end = monotonic() + LIMIT
        while not done():
            assert monotonic() < end
            self.running.client.spin(0.05)

    def put(self, code: int, fields: dict[str, Any]) -> bool:
        """Several questions at once over the service."""
        requests = [AskImage.Request(**self._fields(fields)) for _ in range(EACH)]
        sent = [self._service.call_async(request) for request in requests]
        self._until(lambda: all(future.done() for future in sent))
        return {future.result().status.code for future in sent} == {code}

    def goals(self, code: int, fields: dict[str, Any], *, withdrawn: bool = False) -> bool:
        """The same over the action."""
        sent = [self._action.send_goal_async(AskAction.Goal(**self._fields(fields))) for _ in range(EACH)]
        self._until(lambda: all(future.done() for future in sent))
        if withdrawn:
            for future in sent:
                future.result().cancel_goal_async()
        results = [future.result().get_result_async() for future in sent]
        self._until(lambda: all(future.done() for future in results))
        return {future.result().result.status.code for future in results} == {code}

    def held(self) -> Counter[str]:
        """What the node holds, by type; pictures that goals carried, too."""
        found = gc.get_objects()
        counts = Counter(type(o).__name__ for o in found if type(o) in HELD)
        goals = [o for o in found if type(o) is AskAction.Goal]
        counts["pictures of goals"] = sum(bool(len(goal.image.data)) for goal in goals)
        return counts

    def settled(self, before: Counter[str]) -> Counter[str]:
        """What is held more than before, once the last callbacks have run."""
        end = monotonic() + 5
        while (more := self.held() - before) and monotonic() < end:
            self.running.client.spin(0.05)
        return more


@pytest.fixture(scope="module")
def asking(any_bundle: Path) -> Iterator[Asking]:
    made = Asking(any_bundle)
    yield made
    made.running.close()


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_question_is_left_after_its_answer(asking: Asking, kind: str) -> None:
    before = asking.held()
    assert asking.put(*KINDS[kind])
    assert not asking.settled(before)


@pytest.mark.parametrize("kind", ["plain", "with its own picture", "a stamp of nothing", "a bad picture"])
def test_nothing_of_a_goal_is_left_after_its_result(asking: Asking, kind: str) -> None:
    before = asking.held()
    assert asking.goals(*KINDS[kind])
    assert not asking.settled(before)


def test_nothing_of_a_withdrawn_goal_is_left(asking: Asking) -> None:
    before = asking.held()
    assert asking.goals(Status.CANCELLED, {"camera": "", "max_tokens": 512, "image": CARRIED}, withdrawn=True)
    assert not asking.settled(before)


def test_a_conversation_holds_its_last_picture_alone(asking: Asking) -> None:
    before = asking.held()
    assert asking.put(Status.OK, {"session": "s", "new_frame": True})
    assert asking.settled(before + Counter(Frame=1)) == Counter()


def test_nothing_of_what_an_engine_broke_on_is_left(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    before = asking.held()
    language = asking.running.model.loaded.runtime.language

    def breaks(*_: Any, **__: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(type(language), "forward", breaks)
        assert asking.put(Status.ENGINE_ERROR, {})
    assert not asking.settled(before)
