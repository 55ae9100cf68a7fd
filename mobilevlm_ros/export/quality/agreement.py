# SPDX-License-Identifier: Apache-2.0
"""How often two runtimes of one model give the same greedy answer: what quantisation or an export changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.greedy import decode_greedily
from mobilevlm_ros.engine.interfaces import KVCache
from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.engine.splice import splice
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question

Sample = tuple[NDArray[np.uint8], str]
"""An RGB picture u8 [H, W, 3] and a question about it."""


@dataclass(frozen=True)
class Agreement:
    """Outcome of `measure`. Divergences are over the reference's answer tokens, in nats."""

    samples: int
    equal: int
    """Samples whose whole answers are the same tokens."""
    mean_kl: float
    """Mean divergence KL(reference || candidate) per answer token."""
    worst_kl: float
    different: tuple[tuple[int, str, str, str], ...]
    """Where they differ: sample number, question, reference's answer, candidate's answer."""

    @property
    def fraction(self) -> float:
        """Share of equal answers, 0 to 1; 1 when there are no samples."""
        return self.equal / self.samples if self.samples else 1.0


def measure(
    reference: Runtime,
    candidate: Runtime,
    samples: Iterable[Sample],
    *,
    max_tokens: int = 48,
    progress: Callable[[int], object] = lambda done: None,
) -> Agreement:
    """Asks both runtimes every question and compares their greedy answers, token by token.

    The candidate also reads the reference's answer, so that the divergence of the logits is measured on the
    same text. `progress` is called with the number of samples done. Samples about one picture are faster in a
    row.
    """
    asked = [_Asker(reference), _Asker(candidate)]
    total, divergences = 0, [0.0]
    different = []
    for number, (image, question) in enumerate(samples):
        (wanted, expected), (given, _) = (asker.answer(image, question, max_tokens) for asker in asked)
        total += 1
        if wanted != given:
            decode = reference.tokenizer.decode
            different.append((number, question, decode(wanted), decode(given)))
        actual = asked[1].logits_of(image, question, wanted)[: len(expected)]
        divergences.extend(divergence(expected, actual))
        progress(total)
    measured = divergences[1:] or [0.0]
    return Agreement(
        total,
        total - len(different),
        float(np.mean(measured)),
        float(np.max(measured)),
        tuple(different),
    )


class _Asker:
    """Greedy answers from one runtime; keeps the encoding of the latest picture."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._image: NDArray[np.uint8] | None = None
        self._embeddings: NDArray[np.float32] | None = None

    def answer(
        self, image: NDArray[np.uint8], question: str, max_tokens: int
    ) -> tuple[list[int], NDArray[np.float32]]:
        """Answer ids [n], without the stop id, and the logits f32 [n or n + 1, V] that chose them and it."""
        cache, logits = self._read(image, question)
        stop_ids = self.runtime.bundle.manifest.stop_ids
        return decode_greedily(self.runtime.language, cache, logits, stop_ids, max_tokens)

    def logits_of(self, image: NDArray[np.uint8], question: str, answer: list[int]) -> NDArray[np.float32]:
        """Logits f32 [len(answer) + 1, V] before each token of a given answer and after its last."""
        language = self.runtime.language
        cache, first = self._read(image, question)
        if not answer:
            return first[None]
        rest = language.forward(language.embed(np.array(answer))[None], cache, len(answer))[0]
        return np.concatenate([first[None], rest])

    def _read(self, image: NDArray[np.uint8], question: str) -> tuple[KVCache, NDArray[np.float32]]:
        language, manifest = self.runtime.language, self.runtime.bundle.manifest
        text = TEMPLATES[manifest.template].render([(image_question(question), None)])
        ids = self.runtime.tokenizer.encode_prompt(text)
        embeddings, _ = splice(ids, self._encode(image), language.embed)
        cache = language.new_cache()
        return cache, language.forward(embeddings[None], cache)[0, -1]

    def _encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._embeddings is None or self._image is not image:
            aspect = self.runtime.bundle.manifest.image_aspect
            pixels = prepare(image, self.runtime.vision.image_size, aspect=aspect)
            self._image, self._embeddings = image, self.runtime.vision.encode(pixels[None])[0]
        return self._embeddings


def divergence(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> list[float]:
    """KL divergence in nats of each row of logits f32 [n, V]."""
    p, q = log_softmax(reference), log_softmax(candidate)
    divergences: list[float] = (np.exp(p) * (p - q)).sum(-1).tolist()
    return divergences
