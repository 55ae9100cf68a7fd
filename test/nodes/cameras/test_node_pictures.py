# SPDX-License-Identifier: Apache-2.0
"""Which picture a question is about: the past, several cameras, a part of it. A node with two cameras, whose
pictures and stamps this process chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from mobilevlm_msgs.action import AskImage as AskImageAction
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from sensor_msgs.msg import Image, RegionOfInterest

from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

Ask = Callable[..., Any]
YES_NO = ["yes", "no"]


def picture(seed: int) -> np.ndarray:
    return observe(sample_scene(seed), 0.0, 96, 72).image


class Pair:
    """The node `/pair/mobilevlm` with the cameras left and right; what they show is up to the test."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self._publishers = {
            name: graph.node.create_publisher(Image, f"/pair/{name}/image", 1) for name in ("left", "right")
        }

    def ask(self, question: str = "Is there a cone?", **fields: Any) -> Any:
        options = {"max_age": -1.0, "timeout": 60.0, "choices": YES_NO, **fields}
        return self.graph.call(AskImage, "pair/ask_image", AskImage.Request(question=question, **options))

    def show(self, camera: str, seed: int, seconds: int) -> None:
        """Publish the picture of a scene until the node has it."""
        rgb = picture(seed)
        message = Image(height=72, width=96, encoding="rgb8", step=288, data=rgb.tobytes())
        message.header.stamp.sec, message.header.frame_id = seconds, f"{camera}_optical_frame"
        publisher = self._publishers[camera]

        def arrived() -> bool:
            publisher.publish(message)
            asked = self.ask(camera=camera, stamp=message.header.stamp, max_age=0.001, wait_for_frame=0.2)
            return bool(asked.status.code == Status.OK)

        self.graph.until(lambda: publisher.get_subscription_count(), "the node's subscription")
        self.graph.until(arrived, f"a picture of {camera}")


@pytest.fixture(scope="module")
def pair(graph: Any, endless_bundle: Any) -> Iterator[Pair]:
    parameters = {
        "bundle": endless_bundle,
        "threads": 1,
        "cameras": "['left', 'right']",
        "history_mb": 1,
        "history_rate": 60.0,
        "caption_rate": 0.0,
        "self_test": False,
    }
    child = graph.start("mobilevlm_node", parameters, "__ns:=/pair")
    made = Pair(graph)
    made.show("left", 1, 1000)
    made.show("right", 2, 1000)
    yield made
    graph.children.remove(child)
    child.stop()


def test_all_cameras_are_asked_and_each_answers_for_itself(pair: Pair) -> None:
    both = pair.ask(camera="*")
    assert both.status.code == Status.OK, both.status.message
    assert [answer.camera for answer in both.answers] == ["left", "right"]
    alone = [pair.ask(camera=name) for name in ("left", "right")]
    for answer, single in zip(both.answers, alone, strict=True):
        assert answer.header == single.header and answer.header.frame_id == f"{answer.camera}_optical_frame"
        assert (answer.answer, answer.finish_reason) == (single.answer, "choice")
        assert answer.choice_probabilities == pytest.approx(single.choice_probabilities, abs=1e-5)
    assert both.answer == "; ".join(f"{answer.camera}: {answer.answer}" for answer in both.answers)
    assert both.confidence == min(answer.confidence for answer in both.answers)
    assert both.camera == "*" and both.header.stamp.sec == 0 and both.header.frame_id == ""
    assert not both.choices and not both.choice_probabilities
    assert both.prompt_tokens == sum(answer.prompt_tokens for answer in both.answers)
    parts = both.latency
    assert parts.total >= (parts.queue + parts.encode + parts.prefill + parts.decode) * 0.999


def test_one_camera_that_cannot_answer_does_not_silence_the_others(pair: Pair) -> None:
    pair.show("left", 3, 1100)
    both = pair.ask(camera="*", stamp=Time(sec=1100), max_age=1.0)
    assert both.status.code == Status.FRAME_NOT_FOUND and both.status.message.startswith("right: ")
    assert "1 of 2 cameras answered" in both.status.message
    assert [answer.status.code for answer in both.answers] == [Status.OK, Status.FRAME_NOT_FOUND]
    assert both.answers[0].answer in YES_NO and both.answers[1].answer == ""
    assert both.answer == "" and both.confidence == 0


def test_one_cancel_ends_the_question_to_all(pair: Pair) -> None:
    graph = pair.graph
    client = graph.action("/pair/ask")
    feedback: list[Any] = []
    goal = AskImageAction.Goal(question="Why?", camera="*", max_tokens=1500, max_age=-1.0, timeout=60.0)
    sent = client.send_goal_async(goal, lambda message: feedback.append(message.feedback))
    graph.until(sent.done, "the goal's acceptance")
    graph.until(lambda: any(message.delta for message in feedback), "the first text")
    cancel = sent.result().cancel_goal_async()
    graph.until(cancel.done, "the cancel response")
    outcome = sent.result().get_result_async()
    graph.until(outcome.done, "the result")
    assert outcome.result().status == GoalStatus.STATUS_CANCELED
    result = outcome.result().result
    assert [answer.status.code for answer in result.answers] == [Status.CANCELLED] * 2
    assert result.answers[0].answer and not result.answers[1].answer
    assert result.answer == f"left: {result.answers[0].answer}" and result.finish_reason == "cancelled"
    assert {message.camera for message in feedback if message.delta} == {"left"}
    client.destroy()


def test_all_answers_stream_one_camera_after_the_other(pair: Pair) -> None:
    graph = pair.graph
    client = graph.action("/pair/ask")
    feedback: list[Any] = []
    goal = AskImageAction.Goal(question="What is this?", camera="*", max_tokens=6, max_age=-1.0, timeout=60.0)
    sent = client.send_goal_async(goal, lambda message: feedback.append(message.feedback))
    graph.until(sent.done, "the goal's acceptance")
    outcome = sent.result().get_result_async()
    graph.until(outcome.done, "the result")
    result = outcome.result().result
    assert outcome.result().status == GoalStatus.STATUS_SUCCEEDED and result.finish_reason == "length"
    assert result.generated_tokens == 12
    # Feedback is a topic of its own: the last of it may come after the result.
    graph.until(lambda: feedback[-1].delta and feedback[-1].camera == "right", "feedback about both")
    cameras = [message.camera for message in feedback if message.delta]
    assert cameras == sorted(cameras) and set(cameras) == {"left", "right"}
    client.destroy()


def test_a_stamp_names_a_picture_of_the_past(pair: Pair) -> None:
    for seconds, seed in ((1200, 4), (1202, 5), (1204, 6)):
        pair.show("right", seed, seconds)
    for wanted, found, seed in ((1200.9, 1200, 4), (1201.1, 1202, 5), (1202.0, 1202, 5), (1209.0, 1204, 6)):
        stamp = Time(sec=int(wanted), nanosec=int(wanted % 1 * 1e9))
        asked = pair.ask(camera="right", stamp=stamp, max_age=10.0)
        assert asked.header.stamp.sec == found
        height, width = picture(seed).shape[:2]
        sent = Image(
            height=height, width=width, encoding="rgb8", step=3 * width, data=picture(seed).tobytes()
        )
        same = pair.ask(image=sent)
        assert asked.choice_probabilities == pytest.approx(same.choice_probabilities, abs=1e-5)


def test_a_stamp_that_nothing_is_near_to(pair: Pair) -> None:
    pair.show("right", 4, 1300)
    asked = pair.ask(camera="right", stamp=Time(sec=1305, nanosec=500_000_000), max_age=2.0)
    assert asked.status.code == Status.FRAME_NOT_FOUND
    assert "5.50 s earlier (1300.000)" in asked.status.message and "history_mb" in asked.status.message


def test_a_bag_that_loops_forgets_the_round_before(pair: Pair) -> None:
    pair.show("left", 4, 1400)
    pair.show("left", 5, 1402)
    pair.show("left", 6, 1390)
    asked = pair.ask(camera="left", stamp=Time(sec=1402), max_age=-1.0)
    assert asked.header.stamp.sec == 1390


def test_a_follow_up_to_all_cameras(pair: Pair) -> None:
    pair.show("left", 7, 1500)
    pair.show("right", 8, 1500)
    first = pair.ask(camera="*", session="round")
    pair.show("left", 9, 1501)
    second = pair.ask("Is there a ball?", camera="*", session="round")
    assert (first.session_turn, second.session_turn) == (1, 2)
    assert [answer.header for answer in second.answers] == [answer.header for answer in first.answers]
    third = pair.ask("Is there a sign?", camera="*", session="round", new_frame=True)
    assert [answer.header.stamp.sec for answer in third.answers] == [1501, 1500]


def test_without_a_history_a_stamp_may_still_name_the_newest_picture(ask: Ask) -> None:
    now = ask(max_tokens=1).header.stamp
    near = ask(stamp=now, max_age=30.0, max_tokens=1)
    assert near.status.code == Status.OK
    far = ask(stamp=Time(sec=now.sec - 3600), max_age=30.0, max_tokens=1, wait_for_frame=0.0)
    assert far.status.code == Status.FRAME_NOT_FOUND
    assert "the only one kept" in far.status.message and "set history_mb" in far.status.message


def test_a_region_with_and_without_the_rest(ask: Ask) -> None:
    rgb = picture(3)
    roi = RegionOfInterest(x_offset=8, y_offset=8, width=48, height=48)
    whole, part, both = (
        ask("Is there a cone?", choices=YES_NO, image=rgb, **fields)
        for fields in ({}, {"roi": roi}, {"roi": roi, "roi_with_frame": True})
    )
    assert whole.prompt_tokens == part.prompt_tokens < both.prompt_tokens
    assert [r.status.code for r in (whole, part, both)] == [Status.OK] * 3
