# SPDX-License-Identifier: Apache-2.0
"""POST /v1/chat/completions and GET /v1/models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from time import monotonic, time

from starlette.requests import Request
from starlette.responses import Response

from mobilevlm_ros.server.api_error import ApiError, api_error
from mobilevlm_ros.server.http.body import declared_length, read_body, read_chat_body
from mobilevlm_ros.server.http.guard import log_unexpected
from mobilevlm_ros.server.http.limits import Gate, Limits
from mobilevlm_ros.server.http.prometheus import ServerMetrics
from mobilevlm_ros.server.http.responses import (
    HUNG_UP,
    EventStream,
    Json,
    event,
    unless_hung_up,
)
from mobilevlm_ros.server.openai.request import ChatRequest, read_chat_request
from mobilevlm_ros.server.openai.response import Completion, GrowingText, model_list
from mobilevlm_ros.server.services.pictures import PictureDecoder
from mobilevlm_ros.server.services.service import Picture, Pieces, Question, Reply, VisionService

STREAM_GRACE = 30.0
"""Seconds that a stream may take longer than its question: the client's time to read."""

DECODERS = 2
"""Pictures that are decoded at once: each may take 150 MB."""


class ChatRoutes:
    """The API's routes.

    Args:
        service: answers.
        limits: of the server.
        metrics: are told of every question.
    """

    def __init__(self, service: VisionService, limits: Limits, metrics: ServerMetrics) -> None:
        self._service = service
        self._limits = limits
        self._metrics = metrics
        self._pictures = PictureDecoder()
        self._decoding = asyncio.Semaphore(DECODERS)
        self._questions = Gate(limits.questions, f"{limits.questions} questions are on their way")
        self._bodies = Gate(limits.bodies, "too many large requests at once")
        self._created = int(time())

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return Json(model_list(await self._names(), self._created))

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        names, name = await self._names(), request.path_params["name"]
        if name not in names:
            raise _unknown(name, names)
        return Json(model_list({name: names[name]}, self._created)["data"][0])

    async def chat_completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        try:
            return await self._completions(request)
        except Exception as error:
            told = api_error(error)
            self._metrics.refused(told)
            raise

    async def _completions(self, request: Request) -> Response:
        room = contextlib.ExitStack()
        try:
            room.enter_context(self._questions.passing())
            length = declared_length(request)
            held = self._limits.body if length is None else min(length, self._limits.body)
            room.enter_context(self._bodies.passing(held))
            data = await read_body(request, self._limits)
            body, attached = await read_chat_body(request, data, await self._service.model_name())
            del data
            asked = read_chat_request(body, attached)
            question = await self._question(request, asked)
            pieces = self._service.ask(question)
            completion = Completion(asked.model, asked.request.choices)
            if asked.stream:
                # The first piece decides whether the answer is an error with a status, or a stream.
                start = monotonic()
                first = await unless_hung_up(request, anext(pieces))
                if first is None:
                    await pieces.aclose()
                    return self._hung_up()
                events = self._events(asked, completion, first, pieces, monotonic() - start)
                return EventStream(events, room.pop_all(), question.timeout + STREAM_GRACE)
            reply = await unless_hung_up(request, self._reply(pieces))
            if reply is None:
                return self._hung_up()
            return Json(completion.whole(reply))
        finally:
            room.close()

    async def _question(self, request: Request, asked: ChatRequest) -> Question:
        names = await self._names()
        camera = asked.camera or request.headers.get("x-camera", "")
        model = await self._service.model_name()
        if asked.model not in names and asked.model != (await self._service.status()).model:
            raise _unknown(asked.model, names)
        if asked.model in names and asked.model != model:  # a camera's
            if camera not in ("", asked.model):
                raise ApiError(
                    400,
                    f"model is camera {asked.model!r}, and x-camera is {camera!r}: name one of them",
                    "invalid_parameter",
                    "x-camera",
                )
            camera = asked.model
        images = asked.conversation.images
        if images and (camera or asked.frames > 1):
            named = f"camera {camera!r} is named" if camera else "frames of a camera are asked about"
            raise ApiError(
                400,
                f"the messages hold a picture, and {named}: send pictures with model {model!r}, or none",
                "invalid_parameter",
                "model" if camera else "frames",
            )
        return Question(
            asked.request,
            pictures=tuple([await self._picture(image) for image in images]),
            camera=camera,
            frames=asked.frames,
            frame_interval=asked.frame_interval,
            history=asked.conversation.turns,
            session=asked.session,
            timeout=asked.timeout or self._limits.timeout,
            client=_client(request),
        )

    async def _picture(self, image: bytes) -> Picture:
        kept = self._pictures.kept(image)
        if kept is not None:
            return kept
        async with self._decoding:
            return await asyncio.to_thread(self._pictures.picture, image)

    async def _reply(self, pieces: Pieces) -> Reply:
        start, first = monotonic(), 0.0
        try:
            async for piece in pieces:
                first = first or monotonic() - start
                if isinstance(piece, Reply):
                    self._metrics.answered(piece, first)
                    return piece
        finally:
            await pieces.aclose()
        raise ApiError(500, "the answer ended without a result", "internal_error")

    async def _events(
        self,
        asked: ChatRequest,
        completion: Completion,
        first: str | Reply,
        pieces: Pieces,
        first_token: float,
    ) -> AsyncGenerator[bytes, None]:
        """The chunks of an answer. A failure half way is told as an event: the status is sent already."""
        growing = GrowingText()
        withheld = asked.request.abstain_threshold > 0  # then nothing is known before the end
        ended = False
        try:
            yield event(completion.chunk({"role": "assistant", "content": ""}))
            piece: str | Reply = first
            while not isinstance(piece, Reply):
                text = "" if withheld else growing.push(piece)
                if text:
                    yield event(completion.chunk({"content": text}))
                piece = await anext(pieces)
            self._metrics.answered(piece, first_token)
            ended = True
            rest = growing.rest(piece.answer.text)
            if rest:
                yield event(completion.chunk({"content": rest}))
            yield event(completion.chunk({}, piece))
            if asked.include_usage:
                yield event(completion.usage_chunk(piece))
            yield event("[DONE]")
        except Exception as error:
            told = api_error(error)
            if told.status == 500:
                log_unexpected(error)
            ended = True
            self._metrics.refused(told)
            yield event(told.body())
        finally:
            if not ended:
                self._metrics.hung_up()
            await pieces.aclose()

    def _hung_up(self) -> Response:
        self._metrics.hung_up()
        return Response(status_code=HUNG_UP)

    async def _names(self) -> dict[str, str]:
        """Models: the bundle, and each camera."""
        model = await self._service.model_name()
        names = {model: "the model: send a picture, or ask the default camera"}
        for camera in await self._service.cameras():
            if camera.name:
                names.setdefault(camera.name, f"camera {camera.name} ({camera.source}): its newest frame")
        return names


def _client(request: Request) -> str:
    """Whose turn it is: few names, because the scheduler remembers each."""
    host = request.client.host if request.client else ""
    return f"http {hash(host) % 64}"


def _unknown(name: str, names: dict[str, str]) -> ApiError:
    known = ", ".join(list(names)[:20])
    return ApiError(
        404, f"there is no model or camera {name[:80]!r}: use one of {known}", "model_not_found", "model"
    )
