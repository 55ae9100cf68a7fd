# SPDX-License-Identifier: Apache-2.0
"""Refuse a request that cannot be answered well, before it costs anything."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from numbers import Integral

import numpy as np

from mobilevlm_ros.errors import ImageError, OptionError, QuestionError
from mobilevlm_ros.inference.arguments import check_number, rgb_remedy, text_list
from mobilevlm_ros.inference.structured.formats import check_format
from mobilevlm_ros.inference.types import Frame, Frames, Region, Request, SamplingParams

MAX_QUESTION = 2000
"""Characters in a question. About a quarter of the 2048-token context of MobileLLaMA, far above any real
question.
"""

MAX_SYSTEM_PROMPT = 4000
"""Characters; about half of the context, and read once only."""

MAX_CHOICES = 64
MAX_CHOICE = 200
"""Characters in one choice."""

MAX_TOKENS = 4096
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
"""As OpenAI's API has it."""

MAX_FRAMES = 16
"""Pictures in one question. The 2048 positions of MobileLLaMA's context hold 13 of 144 tokens."""

_BLANK = frozenset("\n\u2800\u3164\u115f\u1160\uffa0")  # letters and symbols that look like a space

RESERVED = ("<image>", "<s>", "</s>", "<unk>")
"""Strings the prompt format gives a meaning to; in a question they would move the picture or end the turn."""


def check_request(request: Request, max_question: int = MAX_QUESTION) -> Request:
    """The request with its texts cleaned.

    Raises:
        QuestionError: the question or a choice cannot be used.
        OptionError: another field is out of range.
    """
    if not isinstance(request, Request):
        raise QuestionError(
            f"the request is a {type(request).__name__}: give Request('What is it?'), or use "
            "mobilevlm_ros.MobileVLM, which takes text"
        )
    question = clean_text(request.question, "question", max_question)
    system_prompt = check_system_prompt(request.system_prompt)
    choices = check_choices(request.choices)
    check_format(request)
    if not 0 <= check_number(request.abstain_threshold, "abstain_threshold") <= 1:
        raise OptionError(
            f"abstain_threshold is {request.abstain_threshold:g}: give a probability from 0 to 1"
        )
    if request.region_with_frame and request.region is None:
        raise OptionError("region_with_frame is set without a region: give the region too")
    check_sampling(request.sampling)
    return dataclasses.replace(request, question=question, system_prompt=system_prompt, choices=choices)


def check_sampling(params: SamplingParams) -> None:
    """Raises OptionError for a value out of range."""
    if not isinstance(params, SamplingParams):
        raise OptionError(f"sampling is a {type(params).__name__}: give SamplingParams(max_tokens=...)")
    if not 1 <= check_number(params.max_tokens, "max_tokens", Integral) <= MAX_TOKENS:
        raise OptionError(f"max_tokens is {params.max_tokens}: give a number from 1 to {MAX_TOKENS}")
    if not 0 <= check_number(params.temperature, "temperature") < math.inf:
        raise OptionError(f"temperature is {params.temperature}: give 0 (greedy) or a positive finite number")
    if not 0 < check_number(params.top_p, "top_p") <= 1:
        raise OptionError(f"top_p is {params.top_p}: give a number above 0 and up to 1")
    if check_number(params.seed, "seed", Integral) < 0:
        raise OptionError(f"seed is {params.seed}: give 0 or a positive number")
    if not 0.5 <= check_number(params.repetition_penalty, "repetition_penalty") <= 2:
        raise OptionError(
            f"repetition_penalty is {params.repetition_penalty}: give a number from 0.5 to 2 (1 is off)"
        )
    if not isinstance(params.logprobs, bool):
        raise OptionError(
            f"logprobs is {params.logprobs!r}: give True or False, and a number as top_logprobs"
        )
    top = check_number(params.top_logprobs, "top_logprobs", Integral)
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise OptionError(f"top_logprobs is {top}: give a number from 0 to {MAX_TOP_LOGPROBS}")
    if top and not params.logprobs:
        raise OptionError("top_logprobs is given without logprobs: set logprobs too")
    stop = text_list(params.stop, "stop")
    if len(stop) > MAX_STOPS or not all(stop):
        raise OptionError(f"stop holds {len(stop)} texts: give at most {MAX_STOPS}, none of them empty")


def check_system_prompt(text: str) -> str:
    """Cleaned system prompt; empty is fine. QuestionError as for `clean_text`."""
    blank = isinstance(text, str) and is_blank(text.strip())
    return "" if blank else clean_text(text, "system prompt", MAX_SYSTEM_PROMPT)


def check_choices(choices: tuple[str, ...]) -> tuple[str, ...]:
    """Cleaned choices, in order.

    Raises QuestionError if they are no list, or there is one only, too many, an empty one or two alike.
    """
    choices = text_list(choices, "choices")
    if not choices:
        return ()
    if len(choices) == 1:
        raise QuestionError(
            f"only one choice was given ({choices[0]!r}): give at least two, or none for free text"
        )
    if len(choices) > MAX_CHOICES:
        raise QuestionError(f"{len(choices)} choices were given: give at most {MAX_CHOICES}")
    cleaned = tuple(clean_text(c, f"choice {i + 1}", MAX_CHOICE) for i, c in enumerate(choices))
    seen: dict[str, int] = {}
    for i, choice in enumerate(cleaned):
        # Case variants are summed when choices are scored, so 'Yes' and 'yes' would be one choice twice.
        first = seen.setdefault(choice.lower(), i)
        if first != i:
            raise QuestionError(
                f"choices {first + 1} and {i + 1} are the same apart from case ({choice!r}): "
                "remove one of them"
            )
    return cleaned


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: spaces, zero-width characters, marks without a letter."""
    return all(
        unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cf", "Cn", "Mn", "Me", "Mc") or char in _BLANK
        for char in text
    )


def clean_text(text: str, name: str, limit: int) -> str:
    """Stripped text with line ends and tabs made uniform.

    Raises:
        QuestionError: no text, empty, longer than `limit` characters, holding a control character, half of a
            surrogate pair, or one of the RESERVED markers.
    """
    if not isinstance(text, str):
        raise QuestionError(f"the {name} is a {type(text).__name__}: give it as text")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ").strip()
    if is_blank(text):
        raise QuestionError(f"the {name} is empty: write at least one word")
    if len(text) > limit:
        raise QuestionError(f"the {name} has {len(text)} characters: shorten it to {limit} or fewer")
    for position, char in enumerate(text):
        if char != "\n" and unicodedata.category(char) in ("Cc", "Cs"):
            raise QuestionError(
                f"the {name} holds the control character U+{ord(char):04X} at position {position}: remove it"
            )
    for marker in RESERVED:
        if marker in text:
            raise QuestionError(f"the {name} holds {marker!r}, which the prompt format reserves: remove it")
    return text


def check_region(region: Region, frame: Frame) -> Region:
    """The region itself; OptionError if it is empty or leaves the frame's picture."""
    height, width = frame.image.shape[:2]
    if region.width <= 0 or region.height <= 0:
        raise OptionError(
            f"the region is {region.width}x{region.height}: give a width and height of at least 1 pixel"
        )
    if min(region.x, region.y) < 0 or region.x + region.width > width or region.y + region.height > height:
        raise OptionError(
            f"the region {region.width}x{region.height} at ({region.x}, {region.y}) leaves the "
            f"{width}x{height} picture: give pixels of the full picture"
        )
    return region


def check_frames(frames: Frames) -> tuple[Frame, ...]:
    """The frames of a question, in their order.

    Raises ImageError if there is none, or more than MAX_FRAMES, or one that `check_frame` refuses.
    """
    if not isinstance(frames, (list, tuple)):
        return (check_frame(frames),)  # type: ignore[arg-type]  # it says what it is
    if not frames:
        raise ImageError("the list of pictures is empty: give at least one")
    if len(frames) > MAX_FRAMES:
        raise ImageError(f"{len(frames)} pictures were given: ask about at most {MAX_FRAMES} at once")
    return tuple(map(check_frame, frames))


def check_frame(frame: Frame) -> Frame:
    """The frame itself; ImageError if its image is not u8[H, W, 3] with at least one pixel."""
    if not isinstance(frame, Frame):
        raise ImageError(
            f"the frame is a {type(frame).__name__}: give Frame(image) with image u8[H, W, 3] in RGB, or use "
            "mobilevlm_ros.MobileVLM, which takes arrays, PIL images and paths"
        )
    image = frame.image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(
            f"a picture must be uint8[height, width, 3] in RGB, this one is {found}: {rgb_remedy(image)}"
        )
    if image.size == 0:
        raise ImageError(f"the image is empty ({image.shape[1]}x{image.shape[0]}): check the camera")
    return frame
