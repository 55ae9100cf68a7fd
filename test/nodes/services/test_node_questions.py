# SPDX-License-Identifier: Apache-2.0
"""The service, over DDS, with a real node and a real camera."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mobilevlm_msgs.msg import Status
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header, String

from mobilevlm_ros.demo.questions import judge, pick_questions
from mobilevlm_ros.ros.images.conversion import compressed_to_rgb
from mobilevlm_ros.ros.images.messages import jpeg_message
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def scene_start(graph, node, seed: int) -> int:
    """Stamp of the scene's beginning, nanoseconds, as the camera tells it."""
    heard: list[String] = []
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    subscription = graph.node.create_subscription(String, "/camera/scene", heard.append, latched)
    graph.until(lambda: heard, "the scene's description")
    graph.node.destroy_subscription(subscription)
    about = json.loads(heard[0].data)
    assert about["seed"] == seed
    return about["start_ns"]


def stamp_ns(response: Any) -> int:
    return response.header.stamp.sec * 1_000_000_000 + response.header.stamp.nanosec


def test_an_answer_carries_what_the_message_promises(ask: Ask) -> None:
    response = ask()
    assert response.status.code == Status.OK, response.status.message
    assert response.camera == "" and response.header.frame_id == "camera_optical_frame"
    assert 0 < response.confidence <= 1
    assert response.finish_reason in ("stop", "length")
    assert response.prompt_tokens > response.generated_tokens > 0
    parts = response.latency
    assert parts.prefill > 0 and parts.decode > 0  # encode is 0 where the frame was asked about before
    assert parts.total >= (parts.queue + parts.encode + parts.prefill + parts.decode) * 0.999
    assert "@" in response.model_id and response.backend == "onnxruntime-cpu"
    assert not response.abstained and not response.answers


def test_choices_get_a_probability_each(ask: Ask) -> None:
    response = ask("Is the path ahead clear?", choices=["yes", "no", "unsure"])
    assert list(response.choices) == ["yes", "no", "unsure"]
    assert sum(response.choice_probabilities) == pytest.approx(1, abs=1e-5)
    best = int(np.argmax(response.choice_probabilities))
    assert response.answer == response.choices[best]
    assert response.confidence == response.choice_probabilities[best]
    assert response.finish_reason == "choice" and response.generated_tokens == 0


def test_the_stamp_is_that_of_the_picture_the_answer_is_about(ask: Ask, scene_start: int, seed: int) -> None:
    """The camera's picture of a stamp can be rendered again: asked about that, the node says the same."""
    response = ask("Is there a cone?", choices=["yes", "no"])
    picture = observe(sample_scene(seed), (stamp_ns(response) - scene_start) * 1e-9).image
    # The camera sends it raw and as JPEG; the node takes what arrives.
    packed = compressed_to_rgb(jpeg_message(picture, Header()))
    again = [ask("Is there a cone?", choices=["yes", "no"], image=sent) for sent in (picture, packed)]
    assert any(
        one.choice_probabilities == pytest.approx(response.choice_probabilities, abs=1e-5) for one in again
    )
    assert all((one.camera, stamp_ns(one)) == ("", 0) for one in again)


def test_later_questions_are_about_later_frames(ask: Ask, scene_start: int) -> None:
    first = stamp_ns(ask(max_tokens=1))
    assert first >= scene_start
    for _ in range(200):
        if stamp_ns(ask(max_tokens=1)) > first:
            return
    pytest.fail("the node keeps answering about the same frame")


def test_answers_match_the_truth_of_the_simulation(ask: Ask, nano, scene_start: int, seed: int) -> None:
    scene = sample_scene(seed)
    questions = pick_questions(scene, 0.0)
    assert len(questions) >= 6
    wrong = []
    for question in questions:
        response = ask(question.text, choices=question.choices, max_tokens=64)
        seconds = (stamp_ns(response) - scene_start) * 1e-9
        verdict = judge(scene, question, response.answer, seconds)
        if not verdict.right:
            wrong.append((question.text, response.answer, verdict.truth))
    assert wrong == []


def test_a_photograph_of_another_world_is_answered_with_its_own_header(ask: Ask) -> None:
    response = ask("What is this?", camera="photo", max_tokens=32)
    assert response.status.code == Status.OK, response.status.message
    assert (response.camera, response.header.frame_id) == ("photo", "photo_optical_frame")
    assert response.answer


def test_the_model_is_less_sure_about_a_photograph_than_about_its_own_world(ask: Ask, nano) -> None:
    question = "Describe the scene."
    assert ask(question, camera="photo").confidence < ask(question).confidence


def test_an_empty_answer_says_why(ask: Ask) -> None:
    first = ask("Describe the scene.").answer[0]
    response = ask("Describe the scene.", stop=[first])
    assert (response.status.code, response.answer, response.finish_reason) == (Status.OK, "", "stop")
    assert "the answer is empty" in response.status.message


def test_abstaining_below_a_threshold(ask: Ask) -> None:
    response = ask("Is it?", choices=["yes", "no", "maybe"], abstain_threshold=1.0)
    assert response.status.code == Status.OK
    assert response.abstained and response.answer == ""
    assert response.confidence == max(response.choice_probabilities)
    assert "abstain_threshold" in response.status.message


def test_a_region_of_interest_is_the_picture_itself(ask: Ask, seed: int) -> None:
    picture = observe(sample_scene(seed), 1.0, 320, 240).image
    part = RegionOfInterest(x_offset=40, y_offset=20, width=160, height=120)
    cut = np.ascontiguousarray(picture[20:140, 40:200])
    of_part = ask("Is it?", choices=["yes", "no"], image=picture, roi=part)
    of_cut = ask("Is it?", choices=["yes", "no"], image=cut)
    assert of_part.choice_probabilities == pytest.approx(of_cut.choice_probabilities, abs=1e-5)


def test_sampling_with_a_seed_is_repeatable(ask: Ask, seed: int) -> None:
    picture = observe(sample_scene(seed), 1.0, 320, 240).image
    options = {"image": picture, "temperature": 1.5, "seed": 11}
    assert ask(**options).answer == ask(**options).answer


def test_a_follow_up_about_the_same_picture_is_not_encoded_again(ask: Ask, seed: int) -> None:
    picture = observe(sample_scene(seed), 2.0, 320, 240).image
    first, second = ask(image=picture), ask("How many things are there?", image=picture)
    assert second.cached_tokens > first.cached_tokens
    assert first.latency.encode > 0 and second.latency.encode == 0


def test_typed_answers(ask: Ask) -> None:
    pytest.importorskip("llguidance", reason="it holds typed answers to their form")
    count = ask("How many balls are there?", answer_format="integer", minimum=0.0, maximum=9.0)
    assert count.status.code == Status.OK, count.status.message
    assert 0 <= int(count.answer) <= 9 and 0 < count.confidence <= 1
    schema = {
        "type": "object",
        "properties": {"color": {"enum": ["red", "white"]}},
        "required": ["color"],
        "additionalProperties": False,
    }
    told = ask("Which color?", answer_format="json", json_schema=json.dumps(schema), max_tokens=64)
    assert told.status.code == Status.OK, told.status.message
    assert json.loads(told.answer)["color"] in ("red", "white")


def test_every_choice_that_applies(ask: Ask) -> None:
    seen = ask("What do you see?", answer_format="choice_list", choices=["ball", "cone", "person"])
    assert seen.status.code == Status.OK, seen.status.message
    odds = dict(zip(seen.choices, seen.choice_probabilities, strict=True))
    assert seen.answer == (", ".join(choice for choice, p in odds.items() if p >= 0.5) or "none")


def test_an_unknown_form_of_answer_is_named(ask: Ask) -> None:
    refused = ask("Is it?", answer_format="haiku")
    assert refused.status.code == Status.INVALID_PARAMETER and "haiku" in refused.status.message
