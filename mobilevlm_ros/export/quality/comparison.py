# SPDX-License-Identifier: Apache-2.0
"""What quantisation changed in a bundle: its answers beside those of the checkpoint in 32-bit floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.greedy import decode_greedily
from mobilevlm_ros.engine.interfaces import LanguageEngine, VisionEngine
from mobilevlm_ros.export.layer_loader import Weights
from mobilevlm_ros.export.quality.agreement import divergence
from mobilevlm_ros.export.quality.reference import encode_images, read_logits
from mobilevlm_ros.export.quantization.calibration_set import (
    CalibrationPrompt,
    CalibrationSet,
    Conversation,
    read_prompts,
)
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.tokenizer import Tokenizer

LEAST_COSINE = 0.995
"""Between image tokens of a quantised encoder and of the exact one; below, answers begin to change."""
TEMPLATE = "v1"
"""Key of processing.prompt.TEMPLATES: that of every released model, as Manifest.describe has it."""
MAX_TOKENS = 16
"""Of the answers that are compared: a word or a short phrase, and the beginning of a description."""


@dataclass(frozen=True)
class BundleQuality:
    """Outcome of a comparison. Divergences are over answer tokens, in nats."""

    samples: int
    """Questions asked."""
    equal: int
    """Those whose greedy answer, up to MAX_TOKENS tokens, is the checkpoint's, token by token."""
    mean_kl: float
    """Mean divergence KL(checkpoint || bundle) per answer token."""
    worst_kl: float
    image_cosine: float
    """Least cosine, over the pictures, between the encoder's output and the checkpoint's."""
    pictures: str
    """What was looked at: 'simulated scenes', or a directory's name."""
    answers: tuple[str, ...] = field(default=(), repr=False)
    """The bundle's answers, for a first look."""

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {**asdict(self), "answers": list(self.answers), "max_tokens": MAX_TOKENS}


class Comparison:
    """One set of questions, asked of the checkpoint once and of a bundle's parts as they are finished."""

    def __init__(
        self,
        calibration: CalibrationSet,
        weights: Weights,
        config: MobileVLMConfig,
        tokenizer: Tokenizer,
        on_layer: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_layer` is called after each layer that is read. Raises ImageError like `Calibration.count`."""
        self._weights = weights
        self._config = config
        self._tokenizer = tokenizer
        self._on_layer = on_layer
        self._source = calibration
        self._asked = [turn._replace(answer=None) for turn in calibration.conversations()]
        pictures: list[NDArray[np.uint8]] = []
        self._picture_of: list[int] = []
        previous: Conversation | None = None
        for turn in self._asked:
            if previous is None or turn.image is not previous.image:
                pictures.append(prepare(turn.image, config.vision.image_size, aspect=config.aspect))
            self._picture_of.append(len(pictures) - 1)
            previous = turn
        self._pixels = np.stack(pictures)
        self._exact = encode_images(weights, config, self._pixels, on_layer)

    def image_cosine(self, vision: VisionEngine) -> float:
        """The least cosine between an encoder's output and the checkpoint's, over the pictures."""
        return min(
            _cosine(vision.encode(picture[None])[0], exact)
            for picture, exact in zip(self._pixels, self._exact, strict=True)
        )

    def measure(
        self, vision: VisionEngine, language: LanguageEngine, stop_ids: Sequence[int]
    ) -> BundleQuality:
        """Asks the bundle every question, and has the checkpoint read its answers.

        An answer is the checkpoint's own if at each of its tokens the checkpoint would have chosen the same:
        so one pass through the checkpoint's layers tells for all answers.
        """
        given: list[list[int]] = []
        rows: list[NDArray[np.float32]] = []
        tokens = [vision.encode(picture[None])[0] for picture in self._pixels]
        for prompt in self._prompts(tokens, language.embed):
            length = min(len(prompt.embeddings) + MAX_TOKENS, language.max_length)
            cache = language.new_cache(capacity=length)
            first = language.forward(prompt.embeddings[None], cache)[0, -1]
            ids, logits = decode_greedily(language, cache, first, stop_ids, MAX_TOKENS)
            given.append(ids)
            rows.append(logits)
        reread = []
        table = self._weights("model.embed_tokens.weight")
        for prompt, ids in zip(self._prompts(list(self._exact), table.__getitem__), given, strict=True):
            answer = table[np.array(ids, np.int64)]
            reread.append(CalibrationPrompt(np.concatenate([prompt.embeddings, answer]), len(ids) + 1))
        del table  # hundreds of megabytes in a large model
        expected = read_logits(self._weights, self._config.language, reread, self._on_layer)
        equal, kl = 0, []
        for logits, wanted in zip(rows, expected, strict=True):
            wanted = wanted[: len(logits)]
            equal += bool((logits.argmax(-1) == wanted.argmax(-1)).all())
            kl += divergence(wanted, logits)
        directory = self._source.directory
        return BundleQuality(
            samples=len(given),
            equal=equal,
            mean_kl=float(np.mean(kl)),
            worst_kl=float(np.max(kl)),
            image_cosine=min(map(_cosine, tokens, self._exact)),
            pictures="simulated scenes" if directory is None else directory.resolve().name,
            answers=tuple(map(self._tokenizer.decode, given)),
        )

    def _prompts(
        self, tokens: Sequence[NDArray[np.float32]], embed: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    ) -> list[CalibrationPrompt]:
        picture_of = iter(dict.fromkeys(self._picture_of))  # read_prompts encodes a picture once
        return list(
            read_prompts(
                iter(self._asked), self._tokenizer, TEMPLATE, lambda _: tokens[next(picture_of)], embed
            )
        )


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / norm) if norm else float(np.array_equal(x, y))
