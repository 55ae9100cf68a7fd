# SPDX-License-Identifier: Apache-2.0
"""From what was said to what the model reads: the template's text as token ids, images in their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.arguments import text_list
from mobilevlm_ros.inference.validate import RESERVED
from mobilevlm_ros.processing.prompt_template import Template, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, Tokenizer

PromptTokens = tuple[int | bytes, ...]
"""A prompt as the model reads it: token ids, and for each image its digest (which takes many positions)."""


@dataclass(frozen=True)
class Turn:
    """A question as it was put to the model, without what the template adds, and its answer."""

    question: str
    answer: str


MAX_HISTORY = 256
"""Texts in a history that a client keeps, and characters in one: far above what a context holds."""

MAX_SAID = 20_000


def turns_of(history: Sequence[str]) -> tuple[Turn, ...]:
    """The turns of question, answer, question, answer, as a client keeps them.

    Raises OptionError: an answer is missing, there are too many, or a text cannot be used.
    """
    texts = text_list(history, "history")
    if len(texts) % 2:
        raise OptionError(
            f"history holds {len(texts)} texts: give question, answer, question, answer; it does not hold "
            "what is asked now"
        )
    if len(texts) > MAX_HISTORY:
        raise OptionError(f"history holds {len(texts)} texts: give at most {MAX_HISTORY}")
    for place, text in enumerate(texts):
        if len(text) > MAX_SAID:
            raise OptionError(
                f"text {place + 1} of history has {len(text)} characters: shorten it to {MAX_SAID}"
            )
    return tuple(Turn(question, answer) for question, answer in zip(texts[::2], texts[1::2], strict=True))


def compose(
    template: Template,
    tokenizer: Tokenizer,
    system_prompt: str,
    images: Sequence[bytes],
    turns: Sequence[Turn],
    question: str,
) -> PromptTokens:
    """The prompt of a conversation: its images stand before its first question, as the models were trained.

    Args:
        template: of the bundle.
        tokenizer: of the bundle.
        system_prompt: replaces the template's; empty keeps it.
        images: digests.
        turns: what was said before, oldest first.
        question: what is asked now.
    """
    if system_prompt:
        template = template.with_system(system_prompt)
    said: list[tuple[str, str | None]] = [(unmarked(turn.question), unmarked(turn.answer)) for turn in turns]
    (first, reply), *rest = [*said, (question, None)]
    text = template.render([(image_question(first, len(images)), reply), *rest])
    digests = iter(images)
    return tuple(next(digests) if i == IMAGE_TOKEN else i for i in tokenizer.encode_prompt(text))


def unmarked(text: str) -> str:
    """The text without the strings that mean something to the prompt format: a model can write them too."""
    while any(marker in text for marker in RESERVED):
        for marker in RESERVED:
            text = text.replace(marker, "")
    return text


def positions(prompt_tokens: PromptTokens, image_tokens: int) -> int:
    """How many positions of the context they take, at `image_tokens` for each image."""
    return len(prompt_tokens) + (image_tokens - 1) * sum(isinstance(token, bytes) for token in prompt_tokens)


def cache_points(prompt_tokens: PromptTokens) -> list[int]:
    """Lengths of the prefixes that other prompts may share: up to the first image, and through each image."""
    images = [at for at, token in enumerate(prompt_tokens) if isinstance(token, bytes)]
    return [*images[:1], *(at + 1 for at in images)]


def common(first: PromptTokens, second: PromptTokens) -> int:
    """Length of the longest common prefix, in prompt tokens."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
