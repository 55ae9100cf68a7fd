# SPDX-License-Identifier: Apache-2.0
"""How old a picture is, whatever the clocks do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.nodes.cameras.freshness import SLOWEST, Age, ClockWatch, arrival_time

S = 1_000_000_000
stamps = st.one_of(st.none(), st.floats(-1e10, 1e10))
ages = st.floats(0.0, 1e6)


@given(stamps, ages, st.floats(SLOWEST, 1.0), st.floats(0.0, 1e5))
def test_no_clock_keeps_a_dead_camera_young(
    by_stamp: float | None, silent: float, rate: float, max_age: float
) -> None:
    """Whatever its stamps say, a picture is too old once nothing has come for longer than max_age."""
    age = Age(by_stamp, silent, rate)
    if silent * rate > max_age:
        assert not age.within(max_age)
    if by_stamp is not None and by_stamp > max_age:
        assert not age.within(max_age)
    if age.within(max_age):
        assert age.seconds <= max_age
    assert age.within(-1.0)


@given(ages, st.floats(0.0, 1e5))
def test_with_clocks_in_step_it_is_the_stamp_that_counts(silent: float, delay: float) -> None:
    age = Age(silent + delay, silent)
    assert age.seconds == silent + delay
    assert age.delay == pytest.approx(delay, abs=1e-6)


def watched(steps: list[tuple[float, float]]) -> ClockWatch:
    """After looks at (real seconds, seconds of the clock)."""
    watch = ClockWatch()
    for steady, now in steps:
        watch.observe(round(now * S), steady)
    return watch


@given(st.floats(SLOWEST, 1.0), st.floats(0.0, 1e6))
def test_the_rate_of_a_slow_simulation_is_measured(rate: float, start: float) -> None:
    watch = watched([(100 + t / 5, start + rate * t / 5) for t in range(50)])
    assert watch.rate == pytest.approx(rate, rel=1e-3)
    assert watch.still_for(110.0) == pytest.approx(110.0 - 109.8)


def test_a_fast_simulation_counts_as_real_time_and_a_stopped_one_as_before() -> None:
    assert watched([(t, 10.0 * t) for t in range(8)]).rate == 1.0
    paused = watched([(t / 2, t / 4) for t in range(9)] + [(4.0 + t, 2.0) for t in range(60)])
    assert paused.rate == pytest.approx(0.5) and paused.still_for(63.0) == pytest.approx(59.0)
    paused.observe(3 * S, 64.0)  # it goes on: nothing is known about its rate yet
    assert paused.rate == 1.0 and paused.still_for(64.0) == 0.0


def test_a_clock_that_never_moved_or_was_set_back() -> None:
    assert watched([]).rate == 1.0 and watched([]).still_for(5.0) == 0.0
    assert watched([(0.0, 0.0), (9.0, 0.0)]).still_for(9.0) == 9.0
    assert watched([(0.0, 100.0), (1.0, 100.1), (2.0, 1.0)]).rate == 1.0
    begun = [(0.0, 0.0)] + [(0.2 * t, 5000.0 + 0.1 * t) for t in range(1, 9)]
    assert watched(begun).rate == pytest.approx(0.5)  # the step from no time to the first is none


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_arrival_is_never_before_the_last_look_nor_in_the_future(
    told: int, wall: int, looked: float, later: float
) -> None:
    """However wrong the system's clocks are, here or at the sender."""
    steady = looked + later
    for info in ({"received_timestamp": told}, {"source_timestamp": told}, {}):
        assert looked <= arrival_time(info, looked, steady, wall) <= steady


def test_the_middleware_tells_when_a_message_arrived() -> None:
    wall = 1_800_000_000 * S
    told = {"received_timestamp": wall - S // 4, "source_timestamp": wall - S}
    assert arrival_time(told, 90.0, 100.0, wall) == pytest.approx(99.75)
    assert arrival_time({**told, "received_timestamp": 0}, 90.0, 100.0, wall) == pytest.approx(99.0)
    assert arrival_time({}, 90.0, 100.0, wall) == 100.0
