# SPDX-License-Identifier: Apache-2.0
"""The official client, over a socket."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import PIL.Image
import pytest

from mobilevlm_ros import MobileVLM

openai = pytest.importorskip("openai", reason="the official client is what this is about")


@pytest.fixture(scope="module")
def api(client):
    with openai.OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def ask(api, picture, text):
    def put(question: str, **fields):
        content = [picture(), text(question)]
        return api.chat.completions.create(
            model="nano", messages=[{"role": "user", "content": content}], **fields
        )

    return put


def test_lists_the_model_and_the_cameras(api) -> None:
    assert [model.id for model in api.models.list()] == ["nano", "front"]
    assert api.models.retrieve("front").id == "front"
    with pytest.raises(openai.NotFoundError) as told:
        api.models.retrieve("gpt-4")
    assert told.value.code == "model_not_found"


def test_answers_the_truth_about_a_picture_and_reads_it_once(ask) -> None:
    first = ask("What is in the image?")
    choice = first.choices[0]
    assert choice.message.content == "A white ball on the left and a green traffic light on the right."
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens

    second = ask("Is there a person?")
    assert second.choices[0].message.content == "No, there is no person."
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert second.usage.prompt_tokens - cached < 20  # the question's own tokens
    assert second.mobilevlm["latency"]["encode"] == 0


def test_streams_the_same_answer_with_usage(ask) -> None:
    whole = ask("What is in the image?")
    chunks = list(ask("What is in the image?", stream=True, stream_options={"include_usage": True}))
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(map(bool, pieces)) > 5
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0
    assert all(c.usage is None for c in chunks[:-1])
    assert chunks[-2].mobilevlm["confidence"] == pytest.approx(whole.mobilevlm["confidence"], abs=1e-3)


def test_a_conversation_goes_on(ask, api, picture, text) -> None:
    def follow(*said: str):
        messages = [{"role": "user", "content": [picture(), text(said[0])]}]
        for at, words in enumerate(said[1:]):
            messages.append({"role": ("assistant", "user")[at % 2], "content": words})
        return api.chat.completions.create(model="nano", messages=messages)

    one = follow("Is there a ball?").choices[0].message.content
    second = follow("Is there a ball?", one, "What is the color of the ball?")
    two = second.choices[0].message.content
    third = follow("Is there a ball?", one, "What is the color of the ball?", two, "Is it day or dusk?")
    assert third.usage.prompt_tokens > second.usage.prompt_tokens
    # The third finds what the second read, and its answer, in the KV cache.
    assert third.usage.prompt_tokens_details.cached_tokens >= second.usage.prompt_tokens
    # An edited history is another conversation: what was kept must not answer for it.
    edited = follow("Is there a ball?", "No.", "What is the color of the ball?", two, "Is it day or dusk?")
    again = follow("Is there a ball?", one, "What is the color of the ball?", two, "Is it day or dusk?")
    assert edited.usage.prompt_tokens < third.usage.prompt_tokens
    assert again.choices[0].message.content == third.choices[0].message.content


def test_several_pictures_in_one_message(api, picture, text, nano) -> None:
    content = [picture(3), picture(4), text("Is it day?")]
    message = {"role": "user", "content": content}
    told = api.chat.completions.create(
        model="nano", messages=[message], extra_body={"choices": ["yes", "no"]}
    )
    with MobileVLM(nano) as vlm:
        expected = vlm.ask([decoded(part) for part in content[:2]], "Is it day?", choices=["yes", "no"])
    assert told.usage.prompt_tokens == expected.prompt_tokens
    assert told.mobilevlm["choice_probabilities"] == pytest.approx(expected.probabilities, abs=1e-3)
    answer = {"role": "assistant", "content": told.choices[0].message.content}
    goes_on = api.chat.completions.create(
        model="nano", messages=[message, answer, {"role": "user", "content": "And in the first?"}]
    )
    assert goes_on.mobilevlm["latency"]["encode"] == 0
    assert goes_on.usage.prompt_tokens > expected.prompt_tokens


def decoded(part):
    """The pixels of an image_url part, RGB."""
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    return np.array(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


def test_asks_a_camera_by_its_name(api) -> None:
    messages = [{"role": "user", "content": "What is in the image?"}]
    by_model = api.chat.completions.create(model="front", messages=messages)
    by_field = api.chat.completions.create(model="nano", messages=messages, extra_body={"x-camera": "front"})
    by_header = api.chat.completions.create(
        model="nano", messages=messages, extra_headers={"x-camera": "front"}
    )
    for completion in (by_model, by_field, by_header):
        assert "white ball" in completion.choices[0].message.content
        assert completion.mobilevlm["camera"] == "front"
        assert completion.mobilevlm["stamp"]["sec"] > 0
        assert completion.mobilevlm["frame_id"] == "front_optical_frame"


def test_choices_get_probabilities(ask) -> None:
    told = ask("Is there a green traffic light?", extra_body={"choices": ["yes", "no"]})
    assert told.choices[0].message.content == "yes"
    odds = told.mobilevlm["choice_probabilities"]
    assert odds["yes"] > 0.9
    assert sum(odds.values()) == pytest.approx(1)
    assert told.usage.completion_tokens == 0


def test_sampling_follows_the_seed(ask) -> None:
    def sampled(seed):
        told = ask("Describe the scene.", temperature=2.0, seed=seed, max_tokens=16)
        return told.choices[0].message.content

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(6)}) > 1


def test_logprobs_spell_the_answer(ask) -> None:
    told = ask("What is in the image?", logprobs=True, top_logprobs=3).choices[0]
    tokens = told.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode().strip() == told.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == pytest.approx(
            max(top.logprob for top in token.top_logprobs), abs=1e-5
        )  # greedy
    chunks = list(ask("What is in the image?", logprobs=True, stream=True))
    assert [t.token for t in chunks[-1].choices[0].logprobs.content] == [t.token for t in tokens]


def test_a_pattern_is_kept(ask) -> None:
    pytest.importorskip("llguidance", reason="enforces the pattern")
    told = ask("Is there a ball?", extra_body={"answer_format": "regex", "pattern": "[0-9]{3}"})
    assert told.choices[0].message.content.isdecimal() and len(told.choices[0].message.content) == 3


def test_max_tokens_and_stop_end_an_answer(ask) -> None:
    short = ask("What is in the image?", max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    stopped = ask("What is in the image?", stop=["on the"])
    assert stopped.choices[0].message.content == "A white ball"
    assert stopped.choices[0].finish_reason == "stop"


def test_json_keeps_its_schema(ask) -> None:
    pytest.importorskip("llguidance", reason="enforces the schema")
    schema = {
        "type": "object",
        "properties": {"seen": {"type": "boolean"}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["seen", "count"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "scene", "schema": schema, "strict": True}}
    told = json.loads(ask("Is there a ball?", response_format=form).choices[0].message.content)
    assert set(told) == {"seen", "count"}
    assert isinstance(told["seen"], bool)
    assert told["count"] in range(10)


def test_an_unsure_answer_is_withheld_also_from_a_stream(ask) -> None:
    fields = {"extra_body": {"abstain_threshold": 1.0}}
    told = ask("What is in the image?", **fields)
    assert told.choices[0].message.content == ""
    assert told.mobilevlm["best_guess"].startswith("A white ball")
    chunks = list(ask("What is in the image?", stream=True, **fields))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == ""
    assert chunks[-1].mobilevlm["abstained"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"extra_body": {"beam_width": 3}}, "beam_width"),
        ({"temperature": 7}, "temperature"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(ask, fields, param) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        ask("Is there a ball?", **fields)
    assert told.value.param == param


def test_the_async_client_streams_side_by_side(client, picture, text) -> None:
    import asyncio

    async def one(api, question):
        stream = await api.chat.completions.create(
            model="nano",
            messages=[{"role": "user", "content": [picture(), text(question)]}],
            stream=True,
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    async def every():
        async with openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none") as api:
            return await asyncio.gather(*(one(api, "Is there a person?") for _ in range(8)))

    assert set(asyncio.run(every())) == {"No, there is no person."}
