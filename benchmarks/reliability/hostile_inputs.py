# SPDX-License-Identifier: Apache-2.0
"""The entry points of hostile.py: what each is fed, and how its bytes are changed."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from hostile_files import NANO, configs, ggufs, manifests, tokenizers, weights, yaml_of
from hostile_mutations import VALUES, as_json, changed_bytes, changed_text
from hostile_node import ros_messages
from PIL import Image as Picture


@dataclass(frozen=True)
class Entry:
    """An entry point: `run(rng)` feeds it once and raises what it raises."""

    name: str
    what: str
    run: Callable[[random.Random], object]
    threads: bool = False
    """Whether it starts some: such a process must not be forked afterwards."""


# ---- pictures


@cache
def _pictures() -> list[bytes]:
    from mobilevlm_ros.simulation.render import observe
    from mobilevlm_ros.simulation.scene_sampler import sample_scene

    made = []
    for kind, options in (
        *(("JPEG", {"quality": q, "progressive": p}) for q in (50, 95) for p in (True, False)),
        *(
            ("PNG", {}),
            ("WEBP", {"lossless": True}),
            ("WEBP", {"quality": 60}),
            ("GIF", {}),
            ("BMP", {}),
            ("TIFF", {}),
        ),
    ):
        held = io.BytesIO()
        Picture.fromarray(observe(sample_scene(len(made)), 0.0, 96, 64).image).save(held, kind, **options)
        made.append(held.getvalue())
    return made


def pictures(rng: random.Random) -> object:
    from mobilevlm_ros.processing.image_decoder import decode_image

    made = decode_image(changed_bytes(rng.choice(_pictures()), rng))
    assert made.ndim == 3 and made.shape[2] == 3 and made.dtype == np.uint8
    return made


def image_messages(rng: random.Random) -> object:
    from mobilevlm_ros.ros.images.conversion import compressed_to_rgb, image_to_rgb
    from mobilevlm_ros.ros.images.encodings import LAYOUTS

    if rng.random() < 0.3:
        kind = rng.choice(
            ("jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; png compressedDepth", "", "x" * 999)
        )
        data = changed_bytes(rng.choice(_pictures()), rng)
        return compressed_to_rgb(SimpleNamespace(format=kind, data=data))
    encoding = rng.choice([*LAYOUTS, "", "rgb", "8UC", "32FC1", "64FC9999", "\x00", "bayer_xxxx16"])
    sizes = (0, 1, 2, 3, 7, 16, 2**16, 2**31, 2**32 - 1)
    width, height = rng.choice(sizes), rng.choice(sizes)
    step = rng.choice((0, 1, width, 3 * width, 2 * width + 1, 2**32 - 1))
    length = rng.choice((0, 1, 48, step * height, step * height + 1))
    data = rng.randbytes(min(length, 4096))
    message = SimpleNamespace(
        width=width,
        height=height,
        encoding=encoding,
        step=step,
        is_bigendian=rng.choice((0, 1, 255)),
        data=data,
    )
    return image_to_rgb(message)


# ---- what is asked

_ALPHABET = "aé 漢🙂\u202e\u0000\u001b\ud800\n</s><s><image>\ufeff\u0301{}[]\"'\\1"


def _words(rng: random.Random, lengths: tuple[int, ...] = (0, 1, 5, 40, 3000)) -> str:
    return "".join(rng.choices(_ALPHABET, k=rng.choice(lengths)))


@cache
def _tokenizer() -> Any:
    from mobilevlm_ros.processing.tokenizer import Tokenizer

    return Tokenizer(NANO / "tokenizer.model")


def questions(rng: random.Random) -> object:
    from mobilevlm_ros.api.options import request_of

    options: dict[str, Any] = {}
    for name in ("choices", "stop"):
        if rng.random() < 0.4:
            options[name] = [_words(rng, (0, 1, 5)) for _ in range(rng.choice((0, 1, 2, 5, 300)))]
    for name in (
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "repetition_penalty",
        "abstain_threshold",
        "region",
    ):
        if rng.random() < 0.3:
            options[name] = rng.choice(VALUES)
    if rng.random() < 0.2:
        options["answer_format"] = rng.choice(
            ("integer", "number", "choice_list", "json", "regex", "x", None, 7)
        )
    request = request_of(_words(rng) if rng.random() < 0.8 else "Is it?", options)
    return _tokenizer().encode_prompt(request.question)


SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0},
        "b": {"enum": ["x", "y"]},
        "c": {"$ref": "#/$defs/d"},
    },
    "required": ["a"],
    "$defs": {
        "d": {"type": "array", "items": {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"type": "null"}]}}
    },
}


def schemas(rng: random.Random) -> object:
    from mobilevlm_ros.inference.structured.conformance import check_schema
    from mobilevlm_ros.inference.structured.formats import read_schema
    from mobilevlm_ros.inference.structured.schema import closed
    from mobilevlm_ros.inference.types import AnswerFormat, Request
    from mobilevlm_ros.inference.validate import check_request

    text = changed_text(SCHEMA, as_json, rng).decode("utf-8", "replace")
    form = AnswerFormat("json", json_schema=text)
    check_request(Request("Is it?", answer_format=form))
    schema = read_schema(form)
    check_schema(schema)
    return closed(schema)


# ---- HTTP


class ServerError(Exception):
    """The server answered 500, or not at all."""


CHAT = {
    "model": "nano",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Is it?"}, {"type": "image_url", "image_url": {"url": ""}}],
        },
    ],
    "max_tokens": 2,
    "temperature": 0,
    "stop": ["x"],
    "stream": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
}


@cache
def _app() -> Any:
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.server.http.app import make_app
    from mobilevlm_ros.server.http.limits import Limits
    from mobilevlm_ros.server.services.local_service import LocalService

    service = LocalService(load_runtime(NANO / "bundle", "onnxruntime-cpu", threads=1))
    return make_app(service, Limits(rate=10**6))


def requests(rng: random.Random) -> object:
    paths = ("/v1/chat/completions",) * 6 + (
        "/v1/models",
        "/healthz",
        "/",
        "/metrics",
        "/x\x00",
        "/../etc/passwd",
    )
    body = changed_text(CHAT, as_json, rng)
    kinds = (b"application/json", b"application/json", b"multipart/form-data; boundary=x", b"", b"\xff")
    headers = [(b"content-type", rng.choice(kinds)), (b"host", b"localhost")]
    status = asyncio.run(
        _exchange(rng.choice(("POST", "POST", "GET", "BREW")), rng.choice(paths), headers, body)
    )
    if status == 0 or status == 500:
        raise ServerError(f"status {status}")
    return status


async def _exchange(method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
    """The status of a request to the application, as a server would put it."""
    told: list[int] = []
    sent = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if sent.is_set():
            await asyncio.sleep(30)
            return {"type": "http.disconnect"}
        sent.set()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    scope = {
        **{
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
        },
        **{
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
        },
        **{"client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8080), "state": {}},
    }
    await _app()(scope, receive, send)
    return told[0] if told else 0


ENTRIES = (
    Entry("pictures", "JPEG, PNG, WebP, GIF, BMP and TIFF bytes", pictures),
    Entry("image messages", "sensor_msgs Image and CompressedImage", image_messages),
    Entry("questions", "questions, choices, options", questions),
    Entry("schemas", "JSON Schemas of typed answers", schemas),
    Entry(
        "monitors",
        "YAML of monitors",
        yaml_of("monitors.yaml", "load_monitors", "mobilevlm_ros.inference.monitoring.monitors"),
    ),
    Entry(
        "presets",
        "YAML of presets",
        yaml_of("presets.yaml", "load_presets", "mobilevlm_ros.inference.prompt.presets"),
    ),
    Entry("manifests", "bundle.json", manifests),
    Entry("configs", "config.json of checkpoints", configs),
    Entry("gguf", "GGUF files", ggufs),
    Entry("weights", "safetensors and .bin files", weights),
    Entry("tokenizers", "tokenizer.model", tokenizers),
    Entry("requests", "HTTP requests", requests, threads=True),
    Entry("ros messages", "serialised messages to the cameras of a live node", ros_messages, threads=True),
)
