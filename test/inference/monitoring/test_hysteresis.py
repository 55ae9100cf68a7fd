# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.inference.monitoring.hysteresis import Hysteresis, State

S = 1_000_000_000

probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
series = st.lists(st.tuples(probabilities, st.integers(0, 3 * S)), max_size=40)  # and seconds since the last


def run(gate: Hysteresis, steps: list[tuple[float, int]]) -> list[tuple[State, int, bool, int]]:
    """State, since, changed, and the stamp, after each step."""
    stamp, seen = S, []
    for probability, gap in steps:
        stamp += gap
        changed = gate.update(probability, stamp)
        seen.append((gate.state, gate.since_ns, changed, stamp))
    return seen


def reference(steps: list[tuple[float, int]], up: float, down: float, hold_ns: int) -> list[State]:
    """By the words of the definition: look back over the unbroken run of pictures past one threshold."""
    stamps = [S + sum(gap for _, gap in steps[: i + 1]) for i in range(len(steps))]
    states, state = [], State.UNKNOWN
    for i in range(len(steps)):
        for wanted, past in (
            (State.RAISED, lambda p: p >= up),
            (State.CLEAR, lambda p: p <= down),
        ):
            start = i + 1
            while start > 0 and past(steps[start - 1][0]):
                start -= 1
            if start <= i and stamps[i] - stamps[start] >= hold_ns:
                state = wanted
        states.append(state)
    return states


@given(series, st.sampled_from([0.0, 0.5, 1.0, 4.0]))
def test_it_does_what_the_definition_says(steps: list[tuple[float, int]], hold: float) -> None:
    seen = run(Hysteresis(0.7, 0.3, hold), steps)
    assert [state for state, *_ in seen] == reference(steps, 0.7, 0.3, round(hold * S))


@given(series, st.sampled_from([0.0, 1.0]))
def test_changes_are_told_once_and_dated_by_their_picture(
    steps: list[tuple[float, int]], hold: float
) -> None:
    before, since = State.UNKNOWN, 0
    for state, began, changed, stamp in run(Hysteresis(0.7, 0.3, hold), steps):
        assert changed == (state is not before)
        assert began == (stamp if changed else since)
        assert began >= since
        before, since = state, began


@given(
    st.lists(st.floats(0.3, 0.7, exclude_min=True, exclude_max=True), min_size=1, max_size=30), st.booleans()
)
def test_between_the_thresholds_nothing_ever_changes(inside: list[float], raised: bool) -> None:
    gate = Hysteresis(0.7, 0.3, 0.0)
    gate.update(1.0 if raised else 0.0, 0)
    assert not any(gate.update(p, (i + 1) * S) for i, p in enumerate(inside))


def test_a_short_visit_past_a_threshold_does_not_count() -> None:
    gate = Hysteresis(0.7, 0.3, 2.0)
    states = [gate.update(p, i * S) and gate.state for i, p in enumerate([0, 0, 0, 1, 1, 0.5, 1, 1, 1, 0])]
    assert states == [False, False, State.CLEAR, False, False, False, False, False, State.RAISED, False]
    assert gate.since_ns == 8 * S


def test_what_was_known_is_forgotten_when_time_jumps_back_or_on_request() -> None:
    gate = Hysteresis(0.7, 0.3, 1.0)
    for second in (10, 11):
        gate.update(1.0, second * S)
    assert gate.state is State.RAISED
    assert gate.update(1.0, 2 * S) and gate.state is State.UNKNOWN and gate.since_ns == 2 * S
    assert gate.update(1.0, 3 * S) and gate.state is State.RAISED
    assert gate.forget() and not gate.forget()
    assert not gate.update(1.0, 4 * S)  # the time held begins anew too


def test_what_is_forgotten_before_it_was_known_is_not_held_meanwhile() -> None:
    gate = Hysteresis(0.7, 0.3, 5.0)
    assert not gate.update(1.0, 10 * S)
    assert not gate.forget(10 * S) and gate.since_ns == 0, "it was unknown before"
    assert not gate.update(1.0, 20 * S), "ten seconds without a picture hold nothing"
    assert gate.update(1.0, 25 * S) and gate.since_ns == 25 * S
    assert gate.forget(25 * S) and gate.since_ns == 25 * S
    assert not gate.forget(30 * S) and gate.since_ns == 25 * S, "unknown since 25 s"


@pytest.mark.parametrize(
    ("up", "down", "hold"), [(0.3, 0.7, 0), (0.5, 0.5, 0), (0.7, 0.3, -1), (1.1, 0.3, 0)]
)
def test_thresholds_that_make_no_sense_are_refused(up: float, down: float, hold: float) -> None:
    with pytest.raises(ValueError, match="need 0 <= down < up <= 1"):
        Hysteresis(up, down, hold)
    with pytest.raises(ValueError):
        Hysteresis(math.nan, down, hold)
