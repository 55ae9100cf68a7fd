# SPDX-License-Identifier: Apache-2.0
"""Overtaking frames, several clocks, and real jumps back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.nodes.cameras.stamp_order import RETURN, StampOrder, Step

S = 1_000_000_000


def steps(frames: list[tuple[float, float]], several: bool = False) -> list[Step]:
    """What each frame (stamp, arrival; seconds) means."""
    order = StampOrder()
    return [order.add(round(stamp * S), arrived, several) for stamp, arrived in frames]


delays = st.lists(st.floats(0.0, 0.9), min_size=2, max_size=60)


@given(delays, st.floats(0.01, 0.5), st.floats(0.0, 1e6), st.booleans())
def test_frames_that_are_held_up_by_less_than_a_second_are_never_a_jump(
    held: list[float], period: float, start: float, several: bool
) -> None:
    sent = sorted((i * period + delay, start + i * period) for i, delay in enumerate(held))
    assert not {Step.JUMP, Step.MIXED} & set(steps([(stamp, arrived) for arrived, stamp in sent], several))


@given(st.floats(1.1, 1e6), st.floats(0.02, 0.3), st.integers(1, 40))
def test_a_bag_that_loops_is_one_jump(length: float, period: float, count: int) -> None:
    first = [(1000.0 + length + i * period, i * period) for i in range(count)]
    over = count * period
    again = [(1000.0 + i * period, over + i * period) for i in range(count)]
    back = first[-1][0] - again[0][0]
    seen = steps(first + again)
    assert seen.count(Step.JUMP) == (back > 1.0)
    if back > 1.0:
        assert seen[count] is Step.JUMP


@given(st.floats(1.1, 1e6), st.floats(0.05, 1.0), st.integers(4, 40), st.booleans())
def test_two_clocks_on_one_topic_are_never_a_jump_once_both_were_seen(
    apart: float, period: float, count: int, ahead_first: bool
) -> None:
    offsets = (apart, 0.0) if ahead_first else (0.0, apart)
    frames = [(50.0 + i * period + offsets[i % 2], i * period) for i in range(count)]
    seen = steps(frames)
    assert Step.JUMP not in seen[3:]
    assert Step.MIXED in seen or apart - period <= 1.0
    assert Step.JUMP not in steps(frames, several=True)


def test_of_two_publishers_the_one_that_stays_is_a_jump_when_the_other_has_been_silent() -> None:
    """A bag player was killed and started again: for a while the graph still knows the dead one."""
    order = StampOrder()
    for i in range(20):
        assert order.add(round((500 + i / 10) * S), i / 10, True) is Step.ONWARD
    after = [(100 + i / 10, 2 + i / 10) for i in range(80)]
    seen = [order.add(round(stamp * S), arrived, True) for stamp, arrived in after]
    jump = seen.index(Step.JUMP)
    assert seen.count(Step.JUMP) == 1 and after[jump][1] - 1.9 > RETURN > after[jump - 1][1] - 1.9 - 0.01


def test_one_wrong_stamp_far_ahead_is_no_jump() -> None:
    seen = steps([(10 + i / 10 + (600 if i == 5 else 0), i / 10) for i in range(100)])
    assert Step.JUMP not in seen


@given(st.floats(0.01, 20.0))
def test_a_simulation_at_any_speed_goes_onward(rate: float) -> None:
    assert set(steps([(i * 0.1 * rate, i * 0.1) for i in range(200)])) == {Step.ONWARD}


def test_a_pause_and_a_gap_are_no_jump() -> None:
    assert set(steps([(1.0, 0.0), (1.1, 90.0), (500.0, 90.1), (500.1, 90.2)])) == {Step.ONWARD}


def test_several_clocks_are_told_for_a_while_and_stamps_that_stand_still_too() -> None:
    order = StampOrder()
    for i in range(6):
        order.add((100 + 5 * (i % 2)) * S, i * 0.1)
    assert order.mixed(0.6) and not order.mixed(0.6 + RETURN)
    for i in range(11):
        order.add(200 * S, 1 + i * 0.1)
    assert 0.99 < order.still_for < 1.01
    order.add(201 * S, 2.1)
    assert order.still_for == 0.0
