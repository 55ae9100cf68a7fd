# SPDX-License-Identifier: Apache-2.0
"""Several frames, patterns, grammars, log-probabilities and conversations that the client keeps, over DDS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from mobilevlm_msgs.action import AskImage as AskImageAction
from mobilevlm_msgs.msg import Status
from mobilevlm_msgs.srv import AskImage
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.inference.validate import MAX_FRAMES
from mobilevlm_ros.ros.images.messages import image_message
from mobilevlm_ros.ros.stamps import to_message, to_nanoseconds
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

QUESTION = "Did the ball move?"
YES_NO = {"choices": ["yes", "no"]}
BEGAN = 1_700_000_000_000_000_000
STEP = 250_000_000
RESEND = 2.0
"""Seconds after which a picture is taken for lost."""


class Robot:
    """A node that keeps the recent past, and what its camera saw: pictures a quarter of a second apart."""

    def __init__(self, graph: Any, second: Any) -> None:
        self.graph = graph
        self.second = second
        self.pictures: list[np.ndarray] = []
        self._publisher = graph.node.create_publisher(Image, "/several/image", 1)
        graph.until(
            self._reaches, "the node's subscription"
        )  # what is sent now is forgotten with the jump back
        for place in range(5):
            self.see(observe(sample_scene(place), 0.0, 160, 120).image)

    def _reaches(self) -> bool:
        """Whether the node hears the publisher, which may know the node's reader before that knows it."""
        self.publish(np.zeros((120, 160, 3), np.uint8), BEGAN + 3600 * 10**9)
        return self.ask(**YES_NO).status.code == Status.OK

    def publish(self, picture: np.ndarray, stamp_ns: int) -> None:
        self._publisher.publish(image_message(picture, Header(stamp=to_message(stamp_ns), frame_id="lens")))

    def see(self, picture: np.ndarray) -> None:
        stamp = BEGAN + len(self.pictures) * STEP
        self.pictures.append(picture)
        self.show(picture, stamp)

    def show(self, picture: np.ndarray, stamp_ns: int) -> None:
        """Publish it until the node has it: it takes pictures without promise of delivery."""
        sent = 0.0

        def arrived() -> bool:
            nonlocal sent
            if monotonic() - sent > RESEND:
                self.publish(picture, stamp_ns)
                sent = monotonic()
            return to_nanoseconds(self.ask(**YES_NO).header.stamp) == stamp_ns

        self.graph.until(arrived, "a frame's arrival")

    def ask(self, question: str = QUESTION, **fields: Any) -> Any:
        options = {"max_age": -1.0, "max_tokens": 8, "timeout": 60.0, **fields}
        return self.second.client.ask(question, **options)


@pytest.fixture(scope="module")
def robot(graph, any_bundle: Path, second_node: Any) -> Iterator[Robot]:
    second = second_node("several", bundle=any_bundle, history_mb=16, history_rate=20.0, caption_rate=0.0)
    yield Robot(graph, second)
    second.close()


@pytest.fixture(scope="module")
def vlm(any_bundle: Path) -> Iterator[MobileVLM]:
    with MobileVLM(any_bundle, threads=1) as made:
        yield made


def seen(response: Any) -> list[int]:
    """Which of the robot's pictures it was about."""
    return [(to_nanoseconds(header.stamp) - BEGAN) // STEP for header in response.frame_headers]


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({"frames": 3}, [2, 3, 4]),
        ({"frames": 3, "frame_interval": 0.5}, [0, 2, 4]),
        ({"frames": 2, "stamp": to_message(BEGAN + 2 * STEP), "max_age": 0.05}, [1, 2]),
    ],
    ids=["as kept", "half a second apart", "of a past instant"],
)
def test_a_question_about_several_frames(
    robot: Robot, vlm: MobileVLM, fields: dict[str, Any], places: list[int]
) -> None:
    response = robot.ask(**fields, **YES_NO)
    assert response.status.code == Status.OK, response.status
    assert seen(response) == places
    assert response.header == response.frame_headers[-1]
    assert {header.frame_id for header in response.frame_headers} == {"lens"}
    expected = vlm.ask([robot.pictures[place] for place in places], QUESTION, choices=["yes", "no"])
    assert list(response.choice_probabilities) == pytest.approx(expected.choice_probabilities, abs=1e-3)
    assert response.prompt_tokens == expected.prompt_tokens


def test_one_frame_has_no_list_of_headers(robot: Robot) -> None:
    assert robot.ask(frames=1, **YES_NO).frame_headers == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"frames": 9}, "keeps 5 frames up to the one that is asked about, and 9 are wanted"),
        ({"frames": 3, "frame_interval": 5.0}, "keeps 5 frames, of which 1 are 5 s apart, and 3 are wanted"),
    ],
)
def test_too_few_frames(robot: Robot, fields: dict[str, Any], said: str) -> None:
    response = robot.ask(**fields)
    assert response.status.code == Status.NO_FRAME
    assert said in response.status.message and "history_mb" in response.status.message


def test_it_waits_until_there_are_enough(graph, robot: Robot) -> None:
    count = len(robot.pictures) + 1
    client = graph.client_of(AskImage, "several/ask_image")
    request = AskImage.Request(question=QUESTION, frames=count, max_age=-1.0, wait_for_frame=60.0, **YES_NO)
    assert client.wait_for_service(60.0)
    future = client.call_async(request)
    graph.client.spin(0.2)
    assert not future.done()
    robot.see(observe(sample_scene(9), 0.0, 160, 120).image)
    graph.until(future.done, "the answer")
    assert future.result().status.code == Status.OK, future.result().status
    assert seen(future.result()) == list(range(count))


def test_without_a_history_it_says_which_parameters(ask: Any) -> None:
    response = ask(frames=2)
    assert response.status.code == Status.UNSUPPORTED
    assert "history_mb" in response.status.message and "history_rate" in response.status.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"frames": MAX_FRAMES + 1}, f"at most {MAX_FRAMES}"),
        ({"frames": 2, "frame_interval": -1.0}, "frame_interval is -1"),
        ({"frames": 2, "frame_interval": float("nan")}, "frame_interval is nan"),
        ({"frame_interval": 1.0}, "say how many frames"),
        ({"frames": 2, "image": np.zeros((9, 9, 3), np.uint8)}, "a picture in the request"),
        ({"frames": 2, "roi": RegionOfInterest(width=9, height=9)}, "a roi"),
        ({"frames": 2, "session": "walk"}, "a session"),
        ({"frames": 2, "camera": "*"}, "camera '*'"),
        ({"history": ["Is it day?"]}, "question, answer"),
        ({"history": ["Is it day?", "yes"], "session": "walk"}, "leave one of them out"),
        ({"logprobs": True, **YES_NO}, "logprobs is given with choices"),
        ({"logprobs": True, "camera": "*"}, "logprobs is given with camera"),
        ({"top_logprobs": 3}, "without logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "0 to 20"),
        ({"pattern": "a"}, "only answer_format 'regex'"),
        ({"answer_format": "regex"}, "pattern is empty"),
        ({"answer_format": "grammar", "grammar": "no rule"}, "grammar"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_go_together(ask: Any, fields: dict[str, Any], said: str) -> None:
    response = ask(**fields)
    assert response.status.code == Status.INVALID_PARAMETER, response.status
    assert said in response.status.message


PICTURE = observe(sample_scene(3), 0.0, 160, 120).image


@pytest.mark.parametrize(
    "form", [{"pattern": "[A-Z]{2}-[0-9]{3}"}, {"grammar": 'start: "left" | "right"'}, {}], ids=str
)
@pytest.mark.parametrize("action", [False, True], ids=["service", "action"])
def test_patterns_grammars_and_log_probabilities(
    graph, robot: Robot, vlm: MobileVLM, form: dict[str, str], action: bool
) -> None:
    kinds = {"pattern": "regex", "grammar": "grammar"}
    fields = {**form, "answer_format": next((kinds[name] for name in form), "")}
    fields |= {"logprobs": True, "top_logprobs": 2, "max_tokens": 12}
    if action:
        goal = AskImageAction.Goal(question=QUESTION, image=image_message(PICTURE, Header()), **fields)
        client = graph.action("/several/ask")
        sent = client.send_goal_async(goal)
        graph.until(sent.done, "the goal's acceptance")
        done = sent.result().get_result_async()
        graph.until(done.done, "the goal's result")
        response = done.result().result
        client.destroy()
    else:
        response = robot.ask(image=PICTURE, **fields)
    assert response.status.code == Status.OK, response.status
    expected = vlm.ask(PICTURE, QUESTION, max_tokens=12, logprobs=True, top_logprobs=2, **form)
    assert response.answer == expected.text
    assert len(response.logprobs) == response.generated_tokens == expected.generated_tokens > 0
    for told, token in zip(response.logprobs, expected.logprobs, strict=True):
        assert (told.text, bytes(told.content)) == (token.text, token.content)
        assert told.logprob == pytest.approx(token.logprob, abs=1e-2)
        assert list(told.top_texts) == [other.text for other in token.top]
        assert list(told.top_logprobs) == pytest.approx([other.logprob for other in token.top], abs=1e-2)


def test_without_being_asked_it_tells_no_log_probabilities(robot: Robot) -> None:
    assert robot.ask(image=PICTURE).logprobs == []


def test_a_conversation_that_the_client_keeps(robot: Robot, vlm: MobileVLM) -> None:
    chat = vlm.chat(PICTURE)
    first = chat.ask("What is on the left?")
    second = chat.ask("Is it near?", choices=["yes", "no"])
    said = ["What is on the left?", first.text]
    response = robot.ask("Is it near?", image=PICTURE, history=said, **YES_NO)
    assert response.status.code == Status.OK, response.status
    assert (response.prompt_tokens, response.session_turn) == (second.prompt_tokens, 0)
    assert list(response.choice_probabilities) == pytest.approx(second.choice_probabilities, abs=0.05)
    marked = robot.ask(image=PICTURE, history=["<image></s> Is it?", "<image>", "And?", ""], **YES_NO)
    assert marked.status.code == Status.OK, marked.status
    long = robot.ask(image=PICTURE, history=["Is it? " * 900, "yes"] * 3, **YES_NO)
    assert long.status.code == Status.OK and "turns of the history do not fit" in long.status.message


def test_frames_of_before_a_jump_are_never_among_them(graph, robot: Robot) -> None:
    """Last in this file: the robot forgets what it saw."""
    robot.show(PICTURE, BEGAN - 100 * STEP * 4)
    response = robot.ask(frames=2)
    assert response.status.code == Status.NO_FRAME
    assert "keeps 1 frames up to the one" in response.status.message
    assert response.header.stamp == Time()
