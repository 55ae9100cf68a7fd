# SPDX-License-Identifier: Apache-2.0
"""HTTP over the cameras of real nodes."""

from __future__ import annotations

import json
import urllib.request

import cv2
import numpy as np
import pytest

from mobilevlm_ros.server.services.node_service import NodeService
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

SEED = 3
"""Of the scene that the node's default camera sees; see fixtures/graph.py."""


@pytest.fixture(scope="module")
def client(node, serve):
    with serve(NodeService()) as made:
        yield made


def test_models_are_the_bundle_and_the_cameras(client) -> None:
    status, told = client.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in told["data"]] == ["nano", "photo", "odd", "silent"]
    status, told = client.get("/healthz")
    assert (status, told["status"]) == (200, "ok")
    assert told["model"].startswith("nano@")


def test_a_live_frame_is_answered_with_its_stamp(client) -> None:
    status, told = client.chat("What is in the image?")
    assert status == 200, told
    assert told["choices"][0]["message"]["content"] == (
        "A white ball on the left and a green traffic light on the right."
    )
    told = told["mobilevlm"]
    assert told["frame_id"] == "camera_optical_frame"
    assert told["stamp"]["sec"] > 1_000_000_000
    assert told["latency"]["total"] > 0
    by_model = client.chat("Is it day or dusk?", model="photo")[1]
    by_field = client.chat("Is it day or dusk?", **{"x-camera": "photo"})[1]
    for told in (by_model, by_field):
        assert (told["mobilevlm"]["camera"], told["mobilevlm"]["frame_id"]) == (
            "photo",
            "photo_optical_frame",
        )


def test_a_node_streams_scores_choices_and_remembers(client) -> None:
    events = client.events("What is in the image?", stream_options={"include_usage": True})
    pieces = [e["choices"][0]["delta"].get("content", "") for e in events[:-1] if e["choices"]]
    assert "".join(pieces) == "A white ball on the left and a green traffic light on the right."
    assert events[-1] == "[DONE]"
    assert events[-2]["usage"]["completion_tokens"] > 5
    _, told = client.chat("Is there a ball?", choices=["yes", "no"])
    assert told["choices"][0]["message"]["content"] == "yes"
    assert told["mobilevlm"]["choice_probabilities"]["yes"] > 0.9
    turns = [client.chat("Is there a ball?", session="http")[1]["mobilevlm"]["session_turn"] for _ in (1, 2)]
    assert turns == [1, 2]


def test_a_picture_that_is_sent_is_asked_about(client, picture, text) -> None:
    status, told = client.chat([picture(7), text("What is in the image?")])
    assert status == 200, told
    other = client.chat("What is in the image?")[1]
    assert told["choices"][0]["message"]["content"] != other["choices"][0]["message"]["content"]
    assert told["mobilevlm"]["stamp"] is None


def test_two_pictures_are_too_many_for_a_node(client, picture, text) -> None:
    status, told = client.chat([picture(7), picture(8), text("What is in the image?")])
    assert (status, told["error"]["code"]) == (400, "unsupported")
    assert "takes one in a question" in told["error"]["message"]


def test_what_the_bundle_does_the_node_does_too(client, serve, make_service, picture, text, nano) -> None:
    """Conversations that the client keeps, patterns, and log-probabilities."""
    said = ["What is in the image?", "A white ball on the left."]
    messages = [[picture(7), text(said[0])], {"role": "assistant", "content": said[1]}, "Is it day?"]
    fields = {"max_tokens": 8, "logprobs": True, "top_logprobs": 2}
    with serve(make_service(nano)) as here:
        for form in ({}, {"answer_format": "regex", "pattern": "[A-Z]{2}-[0-9]{3}"}):
            status, told = client.chat(*messages, **fields, **form)
            assert status == 200, told
            expected = here.chat(*messages, **fields, **form)[1]
            assert told["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
            choice, wanted = told["choices"][0], expected["choices"][0]
            assert choice["message"] == wanted["message"]
            for token, other in zip(
                choice["logprobs"]["content"], wanted["logprobs"]["content"], strict=True
            ):
                assert (token["token"], token["bytes"]) == (other["token"], other["bytes"])
                assert token["logprob"] == pytest.approx(other["logprob"], abs=1e-2)
                assert [t["token"] for t in token["top_logprobs"]] == [
                    t["token"] for t in other["top_logprobs"]
                ]


def test_what_a_node_refuses_has_a_status(client) -> None:
    def code(*messages, **fields):
        status, told = client.chat(*messages, **fields)
        return status, told["error"]["code"]

    assert code("Hm?", **{"x-camera": "rear"}) == (404, "unknown_camera")
    assert code("Hm?", model="silent", timeout=0.5)[0] in (503, 504)
    assert code("Hm?", stop=["x"], answer_format="integer") == (400, "invalid_parameter")
    assert code("Hm?", frames=2) == (400, "unsupported")  # the node keeps no history
    assert code("Hm?", frame_interval=1.0) == (400, "invalid_parameter")
    status, told = client.get("/api/frame?camera=rear")
    assert (status, told["error"]["code"]) == (404, "unknown_camera")


def test_the_live_picture_is_the_cameras(client) -> None:
    status, headers, jpeg = client.send("GET", "/api/frame?camera=&width=320")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    seen = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert seen.shape == (240, 320, 3)
    assert (headers["x-width"], headers["x-height"]) == ("640", "480")
    truth = cv2.resize(observe(sample_scene(SEED)).image, (320, 240), interpolation=cv2.INTER_AREA)
    assert np.abs(seen.astype(int) - truth).mean() < 12
    _, later, _ = client.send("GET", f"/api/frame?camera=&after={headers['x-stamp']}")
    assert int(later["x-stamp"]) > int(headers["x-stamp"])


def test_captions_come_as_events(client) -> None:
    with urllib.request.urlopen(f"{client.url}/api/events", timeout=60) as events:
        for line in events:
            told = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else None
            captions = {c["camera"]: c for c in told["captions"]} if told else {}
            if "" in captions:
                break
    assert captions[""]["text"].startswith("A white ball")
    assert int(captions[""]["stamp_ns"]) > 10**18
    assert told["live"] and told["ready"]
    assert [camera["name"] for camera in told["cameras"]] == ["", "photo", "odd", "silent"]


def test_a_node_that_is_not_there(serve) -> None:
    with serve(NodeService("nowhere")) as client:
        for told in (client.get("/healthz"), client.get("/v1/models"), client.chat("Is it?")):
            assert told[0] == 503
            assert "/nowhere/mobilevlm/metrics" in told[1]["error"]["message"]
        state = client.get("/api/state")[1]
        assert (state["ready"], state["cameras"]) == (False, [])
        assert client.send("GET", "/")[0] == 200


def test_a_node_that_ends_while_it_answers(graph, node, serve, endless_bundle, picture, text) -> None:
    child = graph.start("mobilevlm_node", {"bundle": endless_bundle, "threads": 1}, "__ns:=/brief")
    body = {
        "model": "nano",
        "messages": [{"role": "user", "content": [picture(), text("Describe the scene.")]}],
        "max_tokens": 4096,
        "stream": True,
    }
    with serve(NodeService("brief")) as client:
        graph.until(lambda: client.get("/healthz")[0] == 200, "the node's start")
        request = urllib.request.Request(f"{client.url}/v1/chat/completions", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as events:
            lines = [events.readline() for _ in range(4)]  # it answers
            child.stop()
            lines += list(events)
        graph.children.remove(child)
        last = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")][-1]
        assert last["error"]["code"] in ("cancelled", "node_unavailable")
        graph.until(lambda: client.get("/healthz")[0] == 503, "the end of the node")
