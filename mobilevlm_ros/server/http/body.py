# SPDX-License-Identifier: Apache-2.0
"""Reads the body of a request, within bounds, as JSON or as a form with a picture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mobilevlm_ros.server.api_error import ApiError
from mobilevlm_ros.server.http.limits import Limits

DRAIN_BYTES = 512 << 20
DRAIN_SECONDS = 20.0
"""A body that is too large is read on and thrown away up to here: most clients look for the response only
when they have sent everything.
"""

LARGE = 1 << 20
"""Bytes of JSON that are parsed on a thread, not to hold up everybody else."""


def declared_length(request: Request) -> int | None:
    """Content-Length; None where there is none (chunked). Raises ApiError where it is no number."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 20:
        raise ApiError(400, "Content-Length is no number", "invalid_length")
    return int(text)


async def read_body(request: Request, limits: Limits) -> bytes:
    """All bytes of the body.

    Raises ApiError: 413 larger than `limits.body`, 408 not there in time, 499 the client hung up.
    """
    declared = declared_length(request)
    if declared is not None and declared > limits.body:
        if "100-continue" not in request.headers.get("expect", "").lower():
            await _drain(request)
        raise _too_large(limits, declared)
    try:
        return await asyncio.wait_for(_collect(request, limits), limits.body_seconds)
    except asyncio.TimeoutError:
        raise ApiError(
            408, f"the body was not there within {limits.body_seconds:g} s", "request_timeout"
        ) from None
    except ClientDisconnect:
        raise ApiError(499, "the client hung up", "hung_up") from None


async def read_chat_body(request: Request, data: bytes, model: str) -> tuple[dict[str, Any], bytes | None]:
    """The JSON object of a body, and the picture that came beside it in a form.

    Args:
        data: the body.
        model: name that stands in for a form's field `model`.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _form(request, data, model)
    return await _json(data), None


async def _json(data: bytes) -> dict[str, Any]:
    try:
        value = await asyncio.to_thread(_parse, data) if len(data) > LARGE else _parse(data)
    except RecursionError:
        raise ApiError(400, "the JSON is nested too deeply", "invalid_json") from None
    except ValueError as error:
        where = f" ({error.msg} at byte {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the body is no JSON{where}: send a JSON object", "invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is JSON, but no object: send {...}", "invalid_json")
    return value


def _parse(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


async def _form(request: Request, data: bytes, model: str) -> tuple[dict[str, Any], bytes | None]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield data

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=8, max_part_size=LARGE)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        message = getattr(error, "message", "it cannot be read")
        raise ApiError(400, f"the form is damaged: {message}", "invalid_form") from None
    upload = form.get("image")
    if not isinstance(upload, UploadFile):
        raise ApiError(
            400, "the form has no file `image`: send curl -F image=@photo.jpg", "missing_field", "image"
        )
    attached = await upload.read()
    await form.close()
    request_text, prompt = form.get("request"), form.get("prompt")
    if isinstance(request_text, str):
        return await _json(request_text.encode("utf-8", "surrogatepass")), attached
    if not isinstance(prompt, str):
        raise ApiError(
            400, "the form has neither `prompt` nor `request` (JSON): send one", "missing_field", "prompt"
        )
    name = form.get("model")
    message = {"role": "user", "content": prompt}
    return {"model": name if isinstance(name, str) else model, "messages": [message]}, attached


async def _collect(request: Request, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limits.body:
            await _drain(request)
            raise _too_large(limits, None)
        parts.append(part)
    return b"".join(parts)


async def _drain(request: Request) -> None:
    async def drain() -> None:
        size = 0
        while size < DRAIN_BYTES:
            message = await request.receive()
            size += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return

    try:
        await asyncio.wait_for(drain(), DRAIN_SECONDS)
    except asyncio.TimeoutError:
        return


def _too_large(limits: Limits, size: int | None) -> ApiError:
    told = "more" if size is None else f"{size / 1e6:.1f} MB"
    return ApiError(
        413, f"the body has {told}: send at most {limits.body / 1e6:.1f} MB (make the picture smaller)",
        "request_too_large",
    )  # fmt: skip
