# SPDX-License-Identifier: Apache-2.0
"""What is wrong between a camera's clock and the node's, as a sentence. Numbers only, no ROS."""

from __future__ import annotations

from dataclasses import dataclass

from mobilevlm_ros.nodes.cameras.freshness import PAUSE, Age

TOLERANCE = 0.25
"""Seconds by which stamps may be ahead of the node's clock; hosts that keep time (chrony, PTP) are within
milliseconds, and a simulation's /clock may come a little after the picture.
"""

STILL = 1.0
"""Seconds over which pictures arrive with the same stamp, after which the camera's clock stands still."""

YEAR = 365 * 86400.0

_BAG = "play it with --clock and start the node with use_sim_time:=true"
_SYNC = "keep both clocks in step (chrony or PTP)"
_SIM = "set use_sim_time on both or on none"


_UNKNOWN = Age(None, 0.0)


@dataclass(frozen=True)
class ClockFacts:
    """What is known about the two clocks.

    Attributes:
        simulated: whether the node takes its time from /clock.
        clock_publishers: of /clock.
        now_ns: time of the node's clock, nanoseconds.
        still_for: real seconds since the node's clock was last seen to move (of a simulated one).
        stamp_ns: of the newest picture; 0 where it has none; None before the first picture.
        age: of the newest picture.
        stamps_still_for: seconds over which pictures arrived with the same stamp.
        latched: whether it was kept by its publisher for those who come late.
    """

    simulated: bool
    clock_publishers: int
    now_ns: int
    still_for: float = 0.0
    stamp_ns: int | None = None
    age: Age = _UNKNOWN
    stamps_still_for: float = 0.0
    latched: bool = False


def clock_trouble(facts: ClockFacts, max_age: float) -> str:
    """What is wrong with the clocks and what to do about it; empty where nothing is.

    Args:
        max_age: of pictures, seconds; negative = any. Stamps that are further behind than this are trouble.
    """
    return _of_the_node(facts) or _of_the_camera(facts, max_age)


def _of_the_node(facts: ClockFacts) -> str:
    if not facts.simulated:
        return ""
    if facts.now_ns == 0 and not facts.clock_publishers:
        return (
            "the node's clock stands at 0, because use_sim_time is set and nothing publishes /clock: start "
            "the simulation, play the bag with --clock, or start the node with use_sim_time:=false"
        )
    if facts.now_ns == 0:
        return "the node's clock stands at 0: /clock has a publisher, but no time has come from it yet"
    if facts.still_for > PAUSE:
        cause = "is paused" if facts.clock_publishers else "has ended, nothing publishes /clock any more"
        return (
            f"the node's clock has stood still for {span(facts.still_for)}: the simulation or bag behind "
            f"/clock {cause}; let it go on"
        )
    return ""


def _of_the_camera(facts: ClockFacts, max_age: float) -> str:
    if facts.stamp_ns is None:
        return ""
    if facts.stamp_ns == 0:
        return "its images have no stamps, so their age counts from their arrival: let its driver fill them"
    delay = facts.age.delay
    if facts.stamps_still_for > STILL:
        return (
            f"its stamps have stood still at {facts.stamp_ns * 1e-9:.3f} for {span(facts.stamps_still_for)} "
            f"while images arrived: its clock does not run; {_SIM}"
        )
    if -delay > YEAR:
        return f"its stamps are {span(-delay)} ahead of the node's clock, in another time than its: {_SIM}"
    if -delay > TOLERANCE:
        return (
            f"its clock is {span(-delay)} ahead of the node's, so the age of its images counts from their "
            f"arrival: {_SYNC}"
        )
    if not 0 <= max_age < delay:
        return ""
    if facts.latched:
        return "its publisher has kept it since before this node came, and sends no newer one"
    behind = f"its stamps are {span(delay)} behind the node's clock"
    if facts.stamp_ns * 1e-9 < YEAR < facts.now_ns * 1e-9:
        return f"{behind}, in simulated time: {_SIM}"
    if delay > 3600.0:
        return f"{behind}, as of a bag that is played without --clock: {_BAG}, or, for a camera, {_SYNC}"
    return f"{behind}, or its images are held up on the way: {_SYNC}, or, for a bag, {_BAG}"


def stale_text(label: str, age: Age, max_age: float, silence: str, trouble: str) -> str:
    """Why a picture is refused as too old.

    Args:
        label: of the camera, for sentences.
        age: of its newest picture.
        max_age: oldest allowed, seconds.
        silence: why nothing more arrives; may be empty.
        trouble: of the clocks; may be empty.
    """
    limit = f"{span(age.seconds)} old, older than max_age {max_age:.2f} s"
    if trouble and age.since_arrival * age.rate <= max_age:
        came = f"came {max(0.0, age.since_arrival):.2f} s ago, but by its stamp it is {limit}"
        return f"the newest image of {label} {came}: {trouble}, or allow a larger max_age"
    cause = silence or "check that the camera still publishes"
    text = f"the newest image of {label} is {limit}: {cause}, or allow a larger max_age"
    return text + (f"; besides, {trouble}" if trouble else "")


def span(seconds: float) -> str:
    """A duration for people: '0.25 s', '20.0 s', '3.0 days', '2.0 years'."""
    for unit, name in ((YEAR, "years"), (86400.0, "days"), (3600.0, "hours")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.2f} s" if abs(seconds) < 10 else f"{seconds:.1f} s"
