# SPDX-License-Identifier: Apache-2.0
"""Every relation of two clocks has a sentence, and two that agree have none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.nodes.cameras.clock_trouble import TOLERANCE, ClockFacts, clock_trouble, span
from mobilevlm_ros.nodes.cameras.freshness import Age

S = 1_000_000_000
WALL = 1_800_000_000 * S


def facts(offset: float, now_ns: int = WALL, simulated: bool = False, **others: object) -> ClockFacts:
    """Of a camera whose picture came a tenth of a second ago, with a clock that is `offset` s ahead."""
    stamp = now_ns - S // 10 + round(offset * S)
    age = Age((now_ns - stamp) * 1e-9 if now_ns else None, 0.1)
    return ClockFacts(simulated, int(simulated), now_ns, 0.0, stamp, age, **others)  # type: ignore[arg-type]


DAY = 86400.0
CASES = [
    ("in step", facts(0.0), ""),
    ("a little held up", facts(-1.5), ""),
    ("ahead within tolerance", facts(TOLERANCE - 0.01), ""),
    ("a second ahead", facts(1.0), "1.00 s ahead of the node's, so the age"),
    ("ten minutes ahead", facts(600.0), "600.0 s ahead"),
    ("20 s behind", facts(-20.0), "20.0 s behind the node's clock, or its images are held up"),
    ("a bag of 3 days ago", facts(-3 * DAY), "of a bag that is played without --clock: play it with --clock"),
    ("a bag of 2 years ago", facts(-2 * 365 * DAY), "2.0 years behind the node's clock"),
    ("simulated stamps, wall clock", facts(100 - WALL / S), "in simulated time: set use_sim_time on both"),
    ("wall stamps, simulated clock", facts(WALL / S, 100 * S, True), "in another time than its: set use_sim"),
    ("no /clock", ClockFacts(True, 0, 0, 9.0, WALL), "nothing publishes /clock"),
    ("no /clock and no picture", ClockFacts(True, 0, 0), "nothing publishes /clock"),
    ("/clock without a time", ClockFacts(True, 1, 0), "no time has come from it"),
    ("paused", ClockFacts(True, 1, 50 * S, 30.0, 50 * S, Age(0.0, 30.0)), "behind /clock is paused"),
    ("ended", ClockFacts(True, 0, 50 * S, 30.0, 50 * S, Age(0.0, 30.0)), "has ended"),
    ("zero stamps", ClockFacts(False, 0, WALL, 0.0, 0, Age(None, 0.1)), "its images have no stamps"),
    ("frozen stamps", facts(-1.0, stamps_still_for=1.5), "its stamps have stood still"),
    ("latched", facts(-100.0, latched=True), "has kept it since before this node came"),
    ("no picture", ClockFacts(False, 0, WALL), ""),
]  # fmt: skip


@pytest.mark.parametrize(("found", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_relation_has_its_sentence(found: ClockFacts, said: str) -> None:
    sentence = clock_trouble(found, 2.0)
    assert said in sentence and bool(sentence) == bool(said)


@given(st.floats(-1e9, 1e9), st.floats(0.0, 1e5), st.booleans())
def test_a_clock_that_is_off_by_more_than_max_age_never_goes_without_a_word(
    offset: float, max_age: float, simulated: bool
) -> None:
    sentence = clock_trouble(facts(offset, simulated=simulated), max_age)
    if offset > TOLERANCE + 0.01 or -offset > max_age + 0.01:
        assert "clock" in sentence or "use_sim_time" in sentence
    if -max_age + 0.01 < offset < TOLERANCE - 0.01:
        assert sentence == ""


def test_durations_for_people() -> None:
    assert [span(s) for s in (0.25, 20, 3600, 3 * DAY, 2 * 365 * DAY)] == [
        "0.25 s", "20.0 s", "1.0 hours", "3.0 days", "2.0 years",
    ]  # fmt: skip
