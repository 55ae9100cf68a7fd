# SPDX-License-Identifier: Apache-2.0
"""Whatever comes over the wire: a status, an error object, and a server that goes on."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from fixtures.openai_errors import is_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATH = "/v1/chat/completions"
ANYTHING = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"model": NaN}',
        b"9" * 6000,
        b'{"model": "nano", "messages": [] } trailing',
    ],
)
def test_a_body_that_is_no_request(client, body) -> None:
    status, _, told = client.send("POST", PATH, body)
    assert status == 400
    assert is_error(status, json.loads(told))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages"),
        ({"messages": [{"role": "system", "content": "hi"}]}, "messages"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"seed": 2**80}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"top_p": -1}, "top_p"),
        ({"stop": [""] * 40}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"region": {"x": 0}}, "region"),
        ({"region": {"x": -1, "y": 0, "width": 5, "height": 5}}, "region.x"),
        ({"answer_format": "integer", "response_format": {"type": "json_object"}}, "answer_format"),
        ({"minimum": 3}, "minimum"),
        ({"timeout": -1}, "timeout"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"x" * 5000: 1}, "x" * 80),
    ],
)
def test_the_field_that_is_wrong_is_named(client, fields, param) -> None:
    body = {"model": "front", "messages": [{"role": "user", "content": "Is there a ball?"}], **fields}
    status, _, told = client.send("POST", PATH, json.dumps(body).encode())
    told = json.loads(told)
    assert status == 400
    assert is_error(status, told)
    assert told["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "gpt-4"}, 404, "model_not_found"),
        ({"model": "\ud800"}, 404, "model_not_found"),
        ({"x-camera": "rear"}, 404, "unknown_camera"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "invalid_question"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "invalid_question"),
        ({"messages": [{"role": "user", "content": "<image>"}]}, 400, "invalid_question"),
        ({"messages": [{"role": "user", "content": "a" * 100_000}]}, 400, "invalid_question"),
        ({"choices": ["yes"]}, 400, "invalid_question"),
        ({"stop": [""]}, 400, "invalid_parameter"),
        ({"answer_format": "haiku"}, 400, "invalid_parameter"),
        ({"answer_format": "integer", "stop": ["x"]}, 400, "invalid_parameter"),
        ({"region": {"x": 0, "y": 0, "width": 9999, "height": 9}}, 400, "invalid_parameter"),
        ({"session": "a", "messages": [{"role": r, "content": "Hm?"} for r in ("user", "assistant", "user")]},
         400, "invalid_parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered(client, fields, status, code) -> None:
    body = {"model": "nano", "x-camera": "front", "messages": [{"role": "user", "content": "Hm?"}], **fields}
    got, _, told = client.send("POST", PATH, json.dumps(body).encode())
    assert got == status
    assert is_error(got, json.loads(told), code)


def test_pictures_that_cannot_be_used(client, picture, text) -> None:
    def code(url: str) -> str:
        part = {"type": "image_url", "image_url": {"url": url}}
        status, told = client.chat([part, text("Hm?")])
        assert is_error(status, told)
        assert status == 400
        return told["error"]["code"]

    good = picture()["image_url"]["url"]
    assert code("http://127.0.0.1/cat.jpg") == code("file:///etc/passwd") == "remote_image_refused"
    assert code("cat.jpg") == code("") == "invalid_image_url"
    assert code("data:image/png;base64,????") == "invalid_image"
    assert code("data:image/png;base64,") == "invalid_image"
    assert code("data:image/png;base64,aGVsbG8=") == "invalid_image"
    assert code(good[: len(good) // 2]) == "invalid_image"
    assert code(bomb(60_000, 60_000)) == code(bomb(2**31 - 1, 2**31 - 1)) == "invalid_image"
    other = picture(4)
    said = {"role": "assistant", "content": "A ball."}
    status, told = client.chat([picture(), text("Hm?")], said, [other, text("And now?")])
    assert is_error(status, told, "too_many_images")
    status, told = client.chat([*[picture()] * 17, text("Hm?")])
    assert is_error(status, told, "too_many_images")
    status, told = client.chat([picture(), text("Hm?")], frames=2)
    assert is_error(status, told, "invalid_parameter")
    status, told = client.chat("Is there a ball?")  # answers about the default camera
    assert status == 200
    status, told = client.chat([picture(), text("Hm?")], model="front")
    assert is_error(status, told, "invalid_parameter")


def bomb(width: int, height: int) -> str:
    """A PNG of a few bytes that says it is huge."""
    import base64

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1 << 16))
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_a_hundred_megabytes(client, chunked) -> None:
    if chunked:  # nothing says beforehand how much it will be
        body = iter([b"x" * (1 << 20)] * 100)
        status, _, told = client.send("POST", PATH, body)
    else:
        status, _, told = client.send("POST", PATH, b"x" * 100_000_000)
    assert status == 413
    assert is_error(status, json.loads(told), "request_too_large")


def test_forms(client, picture) -> None:
    def form(*parts: tuple[str, bytes], kind: str = "multipart/form-data; boundary=b") -> tuple[int, dict]:
        body = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"'
            + (b'; filename="a.png"' if name == "image" else b"") + b"\r\n\r\n" + data + b"\r\n"
            for name, data in parts
        )  # fmt: skip
        status, _, told = client.send("POST", PATH, body + b"--b--\r\n", content_type=kind)
        return status, json.loads(told)

    import base64

    png = base64.b64decode(picture()["image_url"]["url"].partition(",")[2])
    status, told = form(("image", png), ("prompt", b"What is in the image?"))
    assert status == 200
    assert "white ball" in told["choices"][0]["message"]["content"]
    request = {
        "model": "nano",
        "messages": [{"role": "user", "content": "Is there a ball?"}],
        "choices": ["yes", "no"],
    }
    status, told = form(("image", png), ("request", json.dumps(request).encode()))
    assert told["choices"][0]["message"]["content"] == "yes"
    assert is_error(*form(("prompt", b"Hm?")), "missing_field")
    assert is_error(*form(("image", png)), "missing_field")
    assert is_error(*form(("image", png), ("request", b"{")), "invalid_json")
    assert is_error(*form(("image", b"no picture"), ("prompt", b"Hm?")), "invalid_image")
    assert is_error(*form(("image", png), kind="multipart/form-data"), "invalid_form")


def test_other_paths_and_methods(client) -> None:
    for path in ("/v2", "/page/../../../etc/passwd", "/page/%2e%2e/run.py", "//etc/passwd", "/api/frame/x"):
        status, told = client.get(path)
        assert status == 404
        assert is_error(status, told, "not_found")
    status, told = client.get(PATH)
    assert is_error(status, told, "method_not_allowed")
    assert is_error(*client.get("/api/frame?camera=rear"), "unknown_camera")
    assert is_error(*client.get("/api/frame?camera=front&after=now"), "invalid_parameter")


@ANYTHING
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["model", "messages", "role", "content", "type", "text", "image_url", "url", "stream", "seed",
                 "choices", "stop", "response_format", "json_schema", "schema", "region", "x", "width"]
            ), inner, max_size=6),
        max_leaves=25,
    )
)  # fmt: skip
def test_any_json_gets_an_answer_or_an_error(client, value) -> None:
    if isinstance(value, dict):
        value = {"model": "front", "messages": [{"role": "user", "content": "Hm?"}], "max_tokens": 2} | value
    try:
        body = json.dumps(value, allow_nan=False).encode()
    except ValueError:  # infinity
        return
    status, _, told = client.send("POST", PATH, body)
    assert status in (200, 400, 404)
    assert status == 200 or is_error(status, json.loads(told))
