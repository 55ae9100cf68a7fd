# SPDX-License-Identifier: Apache-2.0
"""What a calibrated quantisation reads: conversations about simulated scenes, or about a user's pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.splice import splice
from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image_file import check_format, read_picture
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.simulation.questions import FAMILIES, ask
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

QUESTIONS = (
    "Describe the image.",
    "What is in the image?",
    "What is in front of the camera?",
    "Is there a person in the image?\nAnswer the question using a single word or phrase.",
    "Is the way ahead free?",
    "How many people are there?\nAnswer the question using a single word or phrase.",
    "What is on the left?",
    "Is it day or night?",
)
"""Asked about a user's pictures, whose content nobody told us."""

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
"""Of what people take for pictures; a format that is not read is then refused by its name."""
_FIRST_SCENE = 20_000_000  # training and examinations draw other scenes
_SCENES_PER_SEED = 100_000


class Conversation(NamedTuple):
    """A picture u8 [H, W, 3] RGB, a question about it, and an answer where one is known."""

    image: NDArray[np.uint8]
    question: str
    answer: str | None


class CalibrationPrompt(NamedTuple):
    """A conversation as the language model reads it."""

    embeddings: NDArray[np.float32]
    """f32 [T, H], image tokens in their place."""
    tail: int
    """Positions after the image: only there are logits ever wanted."""


@dataclass(frozen=True)
class CalibrationSet:
    """A choice of `samples` conversations; the same seed gives the same ones.

    `directory` holds the user's pictures; None takes simulated scenes.
    """

    directory: Path | None = None
    samples: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.samples <= _SCENES_PER_SEED:
            raise ValueError(f"samples is {self.samples}; it must be from 1 to {_SCENES_PER_SEED}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")

    def count(self) -> int:
        """How many conversations there will be: few pictures make fewer than `samples`.

        Raises ImageError when `directory` has no pictures, or one that cannot be read.
        """
        if self.directory is None:
            return self.samples
        return min(self.samples, len(_pictures(self.directory)) * len(QUESTIONS))

    def conversations(self) -> Iterator[Conversation]:
        """Those about one picture follow each other. Raises ImageError like `count`."""
        return self._simulated() if self.directory is None else self._about_pictures(self.directory)

    def _simulated(self) -> Iterator[Conversation]:
        families = tuple(FAMILIES)
        for number in range(self.samples):
            seed = _FIRST_SCENE + _SCENES_PER_SEED * self.seed + number
            rng = np.random.default_rng([seed, 0xCA1])
            observation = observe(sample_scene(seed), float(rng.uniform(0, 30)))
            turn = number % len(families)
            for family in families[turn:] + families[:turn]:  # some scenes give no reason for some questions
                exchange = ask(observation, family, rng)
                if exchange is not None:
                    yield Conversation(observation.image, exchange.question, exchange.answer)
                    break

    def _about_pictures(self, directory: Path) -> Iterator[Conversation]:
        pictures = _pictures(directory)
        order = np.random.default_rng(self.seed).permutation(len(pictures))
        total = min(self.samples, len(pictures) * len(QUESTIONS))
        for place, index in enumerate(order[:total]):
            image = read_picture(pictures[index])
            for turn in range(len(range(place, total, len(pictures)))):
                yield Conversation(image, QUESTIONS[(place + turn) % len(QUESTIONS)], None)


def read_prompts(
    conversations: Iterator[Conversation],
    tokenizer: Tokenizer,
    template: str,
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> Iterator[CalibrationPrompt]:
    """Prompts of conversations; `encode` makes image tokens f32 [N, H] of a picture, `embed` of ids [T]."""
    image, tokens = None, np.zeros((0, 0), np.float32)
    for conversation in conversations:
        if conversation.image is not image:
            image, tokens = conversation.image, encode(conversation.image)
        turn = (image_question(conversation.question), conversation.answer)
        ids = tokenizer.encode_prompt(TEMPLATES[template].render([turn]))
        yield CalibrationPrompt(*splice(ids, tokens, embed))


def _pictures(directory: Path) -> list[Path]:
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise ImageError(f"calibration directory {directory} {what}; give a directory with pictures")
    pictures = sorted(path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not pictures:
        raise ImageError(
            f"calibration directory {directory} holds no pictures; put some there (.jpg .jpeg .png .webp)"
        )
    for path in pictures:
        check_format(path, f"{path} in the calibration directory")
    return pictures
