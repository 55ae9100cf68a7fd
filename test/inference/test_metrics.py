# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import tracemalloc

import pytest

from mobilevlm_ros.inference.metrics import InferenceMetrics
from mobilevlm_ros.inference.types import Answer, Latency


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(
    encode: float = 0.0, prefill: float = 0.0, decode: float = 0.0, read: int = 0, generated: int = 0
) -> Answer:
    latency = Latency(0.5, encode, prefill, decode)
    return Answer(
        "x", 1.0, (), latency, prompt_tokens=read + 10, reused_tokens=10, generated_tokens=generated
    )


def test_with_nothing_to_measure_all_is_nan() -> None:
    empty = InferenceMetrics()
    for value in (
        empty.first_token(50),
        empty.total(95),
        empty.encode,
        empty.prefill_rate,
        empty.decode_rate,
        empty.utilization,
    ):
        assert math.isnan(value)


def test_percentiles_and_rates_are_those_of_what_was_told() -> None:
    clock = Clock()
    statistics = InferenceMetrics(clock=clock)
    for total in range(1, 102):
        statistics.question(answer(0.1, 0.2, 0.2, 40, 5), float(total))
    assert statistics.total(50) == 51 and statistics.total(95) == 96
    assert statistics.first_token(50) == pytest.approx(0.8)  # queue, encode and prefill
    assert statistics.prefill_rate == pytest.approx(200) and statistics.decode_rate == pytest.approx(25)
    assert statistics.encode == pytest.approx(0.1)


def test_an_answer_without_decoding_is_there_with_its_first_token() -> None:
    statistics = InferenceMetrics()
    statistics.question(answer(0.1, 0.2), 3.0)
    assert statistics.first_token(50) == 3.0


def test_a_batch_encodes_its_frame_once() -> None:
    statistics = InferenceMetrics()
    statistics.work([answer(0.1), answer(0.1), answer(0.1)])  # equal shares of one encode
    assert statistics.encode == pytest.approx(0.3)


def test_what_is_older_than_the_window_does_not_count() -> None:
    clock = Clock()
    statistics = InferenceMetrics(10.0, clock)
    statistics.question(answer(1.0), 8.0)
    statistics.load(5.0)
    clock.now += 4.0
    assert statistics.window == 4.0
    statistics.load(7.0)
    assert statistics.utilization == 0.5
    clock.now += 5.0
    statistics.question(answer(3.0), 2.0)
    statistics.load(7.0)
    assert statistics.total(50) == 5.0 and statistics.utilization == pytest.approx(2 / 9)
    clock.now += 6.0
    statistics.load(13.0)
    assert statistics.total(50) == 2.0 and statistics.encode == 3.0 and statistics.window == 10.0
    assert statistics.utilization == pytest.approx(6 / 11)  # from the last sample before the window


def test_what_nobody_reads_is_forgotten_all_the_same() -> None:
    clock = Clock()
    statistics = InferenceMetrics(window=10.0, clock=clock)

    def ask(count: int) -> int:
        for number in range(count):
            clock.now += 0.01
            statistics.question(answer(0.1, 0.2, 0.2 + number, 40, 5), float(number))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = ask(1_500)
        assert ask(6_000) < first + 20_000  # bytes
    finally:
        tracemalloc.stop()
