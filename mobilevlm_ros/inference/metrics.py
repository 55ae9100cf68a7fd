# SPDX-License-Identifier: Apache-2.0
"""How fast the answers of the last while were, and how busy the inference thread."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

import numpy as np

from mobilevlm_ros.inference.types import Answer

WINDOW = 30.0
"""Seconds that are looked back: long enough for a percentile, short enough to show a change."""

_LONGEST = 10_000  # entries of one kind; more than any model answers in the window


class _Recent:
    """Tuples of numbers of the last `window` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._entries: deque[tuple[float, ...]] = deque(maxlen=_LONGEST)  # each begins with its time

    def add(self, now: float, *values: float) -> None:
        self._entries.append((now, *values))
        self._trim(now)  # here too: there may be nobody who reads them

    def column(self, now: float, index: int = 0) -> list[float]:
        """One of the numbers of each, oldest first."""
        self._trim(now)
        return [entry[index + 1] for entry in self._entries]

    def _trim(self, now: float) -> None:
        while self._entries and self._entries[0][0] < now - self._window:
            self._entries.popleft()

    def rate(self, now: float) -> float:
        """Sum of the first numbers over the sum of the second; NaN where there is nothing."""
        seconds = sum(self.column(now, 1))
        return sum(self.column(now)) / seconds if seconds > 0 else math.nan


class InferenceMetrics:
    """Collects from any thread. Times in seconds, rates in tokens per second; NaN: nothing to measure.

    Args:
        window: seconds to look back.
        clock: monotonic time, seconds.
    """

    def __init__(self, window: float = WINDOW, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._longest = window
        self._questions = _Recent(window)  # first token, total
        self._encodes = _Recent(window)
        self._prefills = _Recent(window)  # tokens, seconds
        self._decodes = _Recent(window)
        self._loads: deque[tuple[float, float]] = deque(maxlen=_LONGEST)  # time, seconds worked

    @property
    def window(self) -> float:
        """Seconds that the numbers are about."""
        return min(self._longest, self._clock() - self._began)

    def question(self, answer: Answer, total: float) -> None:
        """A question was answered, `total` seconds after it arrived."""
        split = answer.latency
        # A question is never interrupted, so its first token comes when the parts before it are done.
        first = min(total, split.queue + split.encode + split.prefill) if split.decode else total
        with self._lock:
            self._questions.add(self._clock(), first, total)
        self.work([answer])

    def work(self, answers: Sequence[Answer]) -> None:
        """The model answered, once or several questions about one frame."""
        encode = sum(answer.latency.encode for answer in answers)
        read = sum(answer.prompt_tokens - answer.reused_tokens for answer in answers)
        prefill = sum(answer.latency.prefill for answer in answers)
        generated = sum(answer.generated_tokens for answer in answers)
        decode = sum(answer.latency.decode for answer in answers)
        with self._lock:
            now = self._clock()
            if encode > 0:
                self._encodes.add(now, encode)
            if prefill > 0 and read > 0:
                self._prefills.add(now, read, prefill)
            if decode > 0 and generated > 0:
                self._decodes.add(now, generated, decode)

    def load(self, busy_seconds: float) -> None:
        """The inference thread has worked so many seconds in all. Call it about once a second."""
        with self._lock:
            now = self._clock()
            self._loads.append((now, busy_seconds))
            while len(self._loads) > 2 and self._loads[1][0] <= now - self._longest:
                self._loads.popleft()

    def first_token(self, percent: float) -> float:
        """Percentile of the time from arrival to the first token of an answer."""
        return self._percentile(self._questions, 0, percent)

    def total(self, percent: float) -> float:
        """Percentile of the time from arrival to the whole answer."""
        return self._percentile(self._questions, 1, percent)

    @property
    def encode(self) -> float:
        """Median time to encode a frame."""
        return self._percentile(self._encodes, 0, 50)

    @property
    def prefill_rate(self) -> float:
        """Tokens per second while prompts are read."""
        with self._lock:
            return self._prefills.rate(self._clock())

    @property
    def decode_rate(self) -> float:
        """Tokens per second while answers are generated."""
        with self._lock:
            return self._decodes.rate(self._clock())

    @property
    def utilization(self) -> float:
        """Share of the time in which the inference thread worked, 0 to 1."""
        with self._lock:
            if len(self._loads) < 2:
                return math.nan
            (start, before), (end, after) = self._loads[0], self._loads[-1]
            return min(1.0, max(0.0, (after - before) / (end - start))) if end > start else math.nan

    def _percentile(self, recent: _Recent, index: int, percent: float) -> float:
        with self._lock:
            values = recent.column(self._clock(), index)
        return float(np.percentile(values, percent)) if values else math.nan
