# SPDX-License-Identifier: Apache-2.0
"""Choosing the next token from logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.inference.types import SamplingParams

GREEDY = SamplingParams()


class Pick(NamedTuple):
    """A token that was chosen.

    Attributes:
        token: its id.
        logprob: of it under the model itself (temperature 1, no penalty); with a mask, among what it marks.
        top: ids and log-probabilities of the most probable tokens, best first; as many as asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Greedy at temperature 0; otherwise seeded nucleus sampling. One for each answer: it remembers its
    tokens.
    """

    def __init__(self, params: SamplingParams = GREEDY) -> None:
        self.params = params
        self._random = np.random.default_rng(params.seed)
        self._said: set[int] = set()

    def pick(self, logits: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> Pick:
        """A token from logits f32[V]; with a mask bool[V], only what it marks can come."""
        log_probs = log_softmax(logits)
        penalised = self._penalise(logits, log_probs)
        if mask is not None:
            log_probs, penalised = (
                log_softmax(np.where(mask, values, -np.inf)) for values in (log_probs, penalised)
            )
        token = int(penalised.argmax()) if self.params.temperature <= 0 else self._draw(penalised)
        self._said.add(token)
        return Pick(token, float(log_probs[token]), _top(log_probs, self.params.top_logprobs))

    def _penalise(self, logits: NDArray[np.float32], log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Repetition penalty of CTRL (arXiv 1909.05858) on the raw logits, as everybody implements it."""
        penalty = self.params.repetition_penalty
        if penalty == 1.0 or not self._said:
            return log_probs
        values = np.asarray(logits, dtype=np.float64).copy()
        said = list(self._said)
        values[said] = np.where(values[said] > 0, values[said] / penalty, values[said] * penalty)
        return log_softmax(values.astype(np.float32))

    def _draw(self, log_probs: NDArray[np.float64]) -> int:
        # Subtract the peak before dividing: a tiny temperature must not overflow.
        scaled = np.exp((log_probs - log_probs.max()) / self.params.temperature)
        probs = scaled / scaled.sum()
        order = np.argsort(-probs, kind="stable")
        cumulative = np.cumsum(probs[order])
        # The smallest set whose mass reaches top_p; the first token always stays in.
        kept = order[: int(np.searchsorted(cumulative, self.params.top_p * (1 - 1e-12))) + 1]
        weights = probs[kept] / probs[kept].sum()
        return int(self._random.choice(kept, p=weights))


def _top(log_probs: NDArray[np.float64], count: int) -> tuple[tuple[int, float], ...]:
    """The `count` most probable tokens that are possible at all, best first."""
    if not count:
        return ()
    best = np.argsort(-log_probs, kind="stable")[:count]
    return tuple((int(i), float(log_probs[i])) for i in best if np.isfinite(log_probs[i]))
