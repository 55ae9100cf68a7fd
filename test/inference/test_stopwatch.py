# SPDX-License-Identifier: Apache-2.0
from collections.abc import Generator

import pytest

from mobilevlm_ros.inference import stopwatch as timing
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Latency


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    return clock


def test_time_while_set_aside_counts_nowhere(clock: Clock) -> None:
    watch = Stopwatch()
    for part, own in (("encode", 2.0), ("prefill", 3.0), ("prefill", 4.0)):
        clock.now += own
        watch.lap(part)
        clock.now += 100.0
        watch.resume()
    assert watch.latency() == Latency(encode=2.0, prefill=7.0)
    assert watch.latency(share=2) == Latency(encode=1.0, prefill=3.5)


def test_steps_are_timed_without_what_happens_between_them(clock: Clock) -> None:
    def work() -> Generator[str, None, int]:
        for delta in "ab":
            clock.now += 1.0
            yield delta
        clock.now += 1.0
        return 7

    watch, deltas = Stopwatch(), []
    steps = watch.timed("decode", work())
    with pytest.raises(StopIteration) as end:
        while True:
            deltas.append(next(steps))
            clock.now += 50.0
    assert (deltas, end.value.value) == (["a", "b"], 7)
    assert watch.latency() == Latency(decode=3.0)
