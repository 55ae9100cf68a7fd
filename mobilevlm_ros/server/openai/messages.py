# SPDX-License-Identifier: Apache-2.0
"""The messages of a chat request as this model reads them: system prompt, turns, question, pictures."""

from __future__ import annotations

from dataclasses import dataclass

from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.inference.validate import MAX_FRAMES
from mobilevlm_ros.server.api_error import ApiError
from mobilevlm_ros.server.openai.fields import Fields
from mobilevlm_ros.server.openai.images import image_bytes

MAX_MESSAGES = 256


@dataclass(frozen=True)
class Conversation:
    """What the messages say.

    Attributes:
        system_prompt: of all system and developer messages; empty without any.
        turns: earlier questions and answers.
        question: the last user message.
        images: bytes of the pictures that it is about, in the order in which they came; none without any.
    """

    system_prompt: str
    turns: tuple[Turn, ...]
    question: str
    images: tuple[bytes, ...]


@dataclass(frozen=True)
class _Message:
    role: str
    text: str
    images: tuple[bytes, ...]


def read_messages(body: Fields, attached: bytes | None = None) -> Conversation:
    """The messages of a request.

    Args:
        attached: a picture that came beside the JSON.

    Raises ApiError where they are not what this model can read.
    """
    items = body.objects("messages")
    if not items:
        raise body.wrong("messages", "is empty: send at least one user message")
    if len(items) > MAX_MESSAGES:
        raise body.wrong("messages", f"holds {len(items)} messages: send at most {MAX_MESSAGES}")
    messages = [_message(item) for item in items]
    system = "\n".join(m.text for m in messages if m.role == "system" and m.text)
    said = _merged([m for m in messages if m.role != "system"])
    if not said or said[-1].role != "user":
        raise body.wrong("messages", "must end with a user message: that is the question")
    for at, message in enumerate(said):
        if message.role != ("user", "assistant")[at % 2]:
            raise body.wrong("messages", "must begin with a user message, and answers must follow questions")
    pairs = zip(said[:-1:2], said[1::2], strict=True)
    turns = tuple(Turn(question.text, answer.text) for question, answer in pairs)
    return Conversation(system, turns, said[-1].text, _pictures(said, attached, body))


def _message(item: Fields) -> _Message:
    role = item.text("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise item.wrong("role", f"is {role[:40]!r}: use 'system', 'user' or 'assistant'")
    if "tool_calls" in item or "function_call" in item:
        raise item.wrong("tool_calls", "is given, and this model calls no tools: leave it out", "unsupported")
    plain = isinstance(item.raw("content"), str)
    texts, images = ([item.text("content")], []) if plain else _parts(item, role)
    return _Message("system" if role == "developer" else role, "\n".join(filter(None, texts)), tuple(images))


def _parts(item: Fields, role: str) -> tuple[list[str], list[bytes]]:
    texts: list[str] = []
    images: list[bytes] = []
    for part in item.objects("content"):
        kind = part.text("type")
        if kind == "text":
            texts.append(part.text("text"))
        elif kind == "image_url" and role == "user":
            # Some clients write the URL itself where the API wants {"url": ...}.
            plain = isinstance(part.raw("image_url"), str)
            url = part.text("image_url") if plain else part.object("image_url").text("url")
            images.append(image_bytes(url, part.path("image_url" if plain else "image_url.url")))
        elif kind == "image_url":
            raise part.wrong(
                "type", f"is image_url in a message of role {role!r}: pictures come from the user"
            )
        else:
            raise part.wrong(
                "type", f"is {kind[:40]!r}: this model reads 'text' and 'image_url'", "unsupported"
            )
    return texts, images


def _merged(messages: list[_Message]) -> list[_Message]:
    """Messages of one role in a row as one: clients send picture and question apart."""
    merged: list[_Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            before = merged.pop()
            text = "\n".join(filter(None, (before.text, message.text)))
            message = _Message(message.role, text, before.images + message.images)
        merged.append(message)
    return merged


def _pictures(said: list[_Message], attached: bytes | None, body: Fields) -> tuple[bytes, ...]:
    """The pictures of the conversation: those of the last message that has any. The models were trained with
    them before the first question, so other ones before cannot be told apart from these.
    """
    shown = [message.images for message in said if message.images]
    if attached is not None:
        shown.append((attached,))
    if not shown:
        return ()
    others = {image for images in shown for image in images}.difference(shown[-1])
    if others:
        raise ApiError(
            400,
            f"earlier messages hold {len(others)} pictures that the last one with pictures does not: send "
            "all pictures that a question is about in one message, or begin a new conversation",
            "too_many_images",
            "messages",
        )
    if len(shown[-1]) > MAX_FRAMES:
        raise ApiError(
            400,
            f"a message holds {len(shown[-1])} pictures: send at most {MAX_FRAMES}",
            "too_many_images",
            "messages",
        )
    return shown[-1]
