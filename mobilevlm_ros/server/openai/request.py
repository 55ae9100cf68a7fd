# SPDX-License-Identifier: Apache-2.0
"""From the JSON of a chat completion request to a question."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from mobilevlm_ros.inference.types import AnswerFormat, Region, Request, SamplingParams
from mobilevlm_ros.inference.validate import MAX_FRAMES, MAX_STOPS, MAX_TOKENS
from mobilevlm_ros.server.openai.fields import Fields
from mobilevlm_ros.server.openai.messages import Conversation, read_messages

DEFAULT_MAX_TOKENS = 256
MAX_TIMEOUT = 3600.0
LARGEST = 1e15
"""Bound of a number's range; see answer_format 'number'."""

_USED = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature",
        "top_p", "seed", "stop", "n", "response_format", "frequency_penalty", "presence_penalty",
        "tools", "functions", "logprobs", "top_logprobs", "modalities", "audio", "logit_bias",
    }
)  # fmt: skip
_IGNORED = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "parallel_tool_calls", "tool_choice", "function_call", "reasoning_effort", "verbosity",
    }
)  # fmt: skip
"""Fields of the API that say nothing about the answer's content here."""
EXTENSIONS = frozenset(
    {
        "choices", "abstain_threshold", "answer_format", "minimum", "maximum", "pattern", "grammar", "region",
        "region_with_frame", "repetition_penalty", "session", "x-camera", "frames", "frame_interval",
        "timeout",
    }
)  # fmt: skip
"""Fields that the API does not have; the `openai` client sends them with `extra_body`."""
_KNOWN = _USED | _IGNORED | EXTENSIONS


@dataclass(frozen=True)
class ChatRequest:
    """A request that was read.

    Attributes:
        model: as the client calls it.
        conversation: what was said, the question and the pictures' bytes.
        request: what is asked and how it is answered.
        camera, session: extensions; empty without.
        frames, frame_interval: extensions: how many frames of the camera, and seconds between them; 0: one.
        timeout: seconds; 0: the server's own.
        stream: answer piece by piece.
        include_usage: end the stream with the token counts.
    """

    model: str
    conversation: Conversation
    request: Request
    camera: str
    session: str
    frames: int
    frame_interval: float
    timeout: float
    stream: bool
    include_usage: bool


def read_chat_request(data: dict[str, Any], attached: bytes | None = None) -> ChatRequest:
    """A request from its JSON object.

    Args:
        attached: a picture that came beside the JSON.

    Raises ApiError that names the first field that is wrong.
    """
    body = Fields(data)
    body.only(_KNOWN)
    _refuse_unsupported(body)
    if "model" not in body:
        raise body.wrong("model", "is missing: GET /v1/models lists the models and cameras", "missing_field")
    if "messages" not in body:
        raise body.wrong("messages", "is missing: send at least one user message", "missing_field")
    conversation = read_messages(body, attached)
    session = body.text("session")
    if session and conversation.turns:
        raise body.wrong("session", "is given with earlier turns: the server keeps them, send the last only")
    if len(session) > 200:
        raise body.wrong("session", f"has {len(session)} characters: shorten it to 200 or fewer")
    options = body.object("stream_options")
    options.only(frozenset({"include_usage", "include_obfuscation"}))
    stream = body.flag("stream")
    if "stream_options" in body and not stream:
        raise body.wrong("stream_options", "is given without stream: true")
    return ChatRequest(
        model=body.text("model"),
        conversation=conversation,
        request=_request(body, conversation),
        camera=body.text("x-camera"),
        session=session,
        frames=body.integer("frames", 0, MAX_FRAMES, 0),
        frame_interval=body.number("frame_interval", 0, 3600, 0.0),
        timeout=body.number("timeout", 0, MAX_TIMEOUT, 0.0),
        stream=stream,
        include_usage=options.flag("include_usage"),
    )


def _request(body: Fields, conversation: Conversation) -> Request:
    stop = body.texts("stop")
    if len(stop) > MAX_STOPS:
        raise body.wrong("stop", f"holds {len(stop)} texts: give at most {MAX_STOPS}")
    tokens = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    region = _region(body)
    sampling = SamplingParams(
        max_tokens=body.integer(tokens, 1, MAX_TOKENS, DEFAULT_MAX_TOKENS),
        temperature=body.number("temperature", 0, 2, 0.0),
        top_p=_top_p(body),
        seed=_seed(body),
        repetition_penalty=body.number("repetition_penalty", 0.5, 2, 1.0),
        stop=stop,
        logprobs=body.flag("logprobs"),
        top_logprobs=body.integer("top_logprobs", 0, 20, 0),
    )
    return Request(
        conversation.question,
        choices=body.texts("choices"),
        abstain_threshold=body.number("abstain_threshold", 0, 1, 0.0),
        system_prompt=conversation.system_prompt,
        region=region,
        region_with_frame=body.flag("region_with_frame"),
        sampling=sampling,
        answer_format=_format(body),
    )


def _top_p(body: Fields) -> float:
    value = body.number("top_p", 0, 1, 1.0)
    return value or 1e-6  # 0 means the likeliest token alone


def _seed(body: Fields) -> int:
    """The client's, made positive; without one another each time."""
    if "seed" not in body:
        return secrets.randbits(63)
    return body.integer("seed", -(2**63), 2**63 - 1, 0) % 2**63


def _format(body: Fields) -> AnswerFormat:
    """Of response_format, or of the extension answer_format."""
    form = body.object("response_format")
    kind = form.text("type", "text")
    if kind == "json_object":
        form.only(frozenset({"type"}))
        asked = AnswerFormat("json", json_schema='{"type": "object"}')
    elif kind == "json_schema":
        asked = AnswerFormat("json", json_schema=_schema(form.object("json_schema")))
    elif kind == "text":
        asked = AnswerFormat()
    else:
        raise form.wrong(
            "type", f"is {kind[:40]!r}: use 'text', 'json_object' or 'json_schema'", "unsupported"
        )
    extension = body.text("answer_format")
    if extension and asked.kind:
        raise body.wrong("answer_format", "is given with response_format: leave one of them out")
    if not extension:
        needs = {"minimum": "integer", "maximum": "integer", "pattern": "regex", "grammar": "grammar"}
        for name, form_name in needs.items():
            if name in body:
                raise body.wrong(name, f"needs answer_format {form_name!r}")
        return asked
    return AnswerFormat(
        extension,
        minimum=body.number("minimum", -LARGEST, LARGEST, 0.0),
        maximum=body.number("maximum", -LARGEST, LARGEST, 0.0),
        pattern=body.text("pattern"),
        grammar=body.text("grammar"),
    )


def _schema(form: Fields) -> str:
    form.only(frozenset({"name", "description", "schema", "strict"}))
    if not isinstance(form.raw("schema"), dict):
        raise form.wrong("schema", "is missing: give the JSON Schema as an object")
    return json.dumps(form.raw("schema"))


def _region(body: Fields) -> Region | None:
    if "region" not in body:
        return None
    given = body.object("region")
    given.only(frozenset({"x", "y", "width", "height"}))
    x, y = (given.integer(name, 0, 2**31 - 1, 0) for name in ("x", "y"))
    width, height = (given.integer(name, 1, 2**31 - 1, 0) for name in ("width", "height"))
    if not width or not height:
        raise body.wrong("region", "needs x, y, width and height, in pixels of the full picture")
    return Region(x, y, width, height)


def _refuse_unsupported(body: Fields) -> None:
    """What would change the answer and cannot be served must not be passed over."""
    if body.integer("n", 1, 128, 1) != 1:
        raise body.wrong(
            "n", "is above 1: this server gives one answer, ask again for another", "unsupported"
        )
    for name in ("frequency_penalty", "presence_penalty"):
        if body.number(name, -2, 2, 0.0):
            raise body.wrong(name, "is not supported: use repetition_penalty (1 is off)", "unsupported")
    for name in ("tools", "functions", "audio", "logit_bias"):
        if body.raw(name):
            raise body.wrong(name, "is not supported by this model: leave it out", "unsupported")
    if body.raw("modalities") not in (None, ["text"]):
        raise body.wrong("modalities", "holds more than 'text': this model answers in text", "unsupported")
    if body.integer("top_logprobs", 0, 20, 0) and not body.flag("logprobs"):
        raise body.wrong("top_logprobs", "is given without logprobs: true")
