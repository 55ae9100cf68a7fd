# SPDX-License-Identifier: Apache-2.0
"""A camera over DDS that lives and dies under every relation of its clock to the node's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import pytest
from fixtures.cameras import S, World, image, wall, world
from mobilevlm_msgs.msg import Status
from rosgraph_msgs.msg import Clock

from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.ros.stamps import to_message
from mobilevlm_ros.ros.status import Refused, name_of

__all__ = ["world"]
MAX_AGE = 0.4
DAY = 86400.0
START = wall()


@dataclass
class Case:
    """Stamps of the camera and times on /clock, nanoseconds (None: no /clock); what is said about them, and
    whether a camera that lives is answered about."""

    name: str
    stamp: Callable[[], int]
    said: str
    answered: bool = True
    clock: Callable[[], int] | None = None
    simulated: bool = False


def frozen() -> int:
    return START


def simulated() -> int:
    return wall() - START + 100 * S


CASES = [
    Case("in step", wall, ""),
    Case("3 s ahead", lambda: wall(3), "s ahead of the node's"),
    Case("600 s ahead", lambda: wall(600), "600.0 s ahead of the node's"),
    Case("20 s behind", lambda: wall(-20), "behind the node's clock", False),
    Case("bag without --clock", lambda: wall(-3 * DAY), "--clock", False),
    Case("no stamps", lambda: 0, "no stamps"),
    Case("frozen stamps", frozen, "stood still", False),
    Case("frozen stamps ahead", lambda: START + 600 * S, "stood still"),
    Case("simulated stamps", simulated, "simulated time: set use_sim_time", False),
    Case("no /clock", wall, "nothing publishes /clock", simulated=True),
    Case("no /clock and no stamps", lambda: 0, "nothing publishes /clock", simulated=True),
    Case("wall stamps on simulated time", wall, "set use_sim_time", clock=simulated, simulated=True),
    Case("simulation", simulated, "", clock=simulated, simulated=True),
    Case("frozen /clock", lambda: 100 * S, "stood still", clock=lambda: 100 * S, simulated=True),
]


@pytest.mark.parametrize(
    ("world", "case"),
    [pytest.param(case.simulated, case, id=case.name) for case in CASES],
    indirect=["world"],
)
def test_a_dead_camera_is_never_answered_about_and_its_clock_is_named(world: World, case: Case) -> None:
    camera = Camera(world.node, "seen")
    pictures = world.node.create_publisher(type(image(0)), "seen/image", 1)
    clock = world.node.create_publisher(Clock, "/clock", 1) if case.clock else None

    def tick() -> None:
        if clock is not None and case.clock is not None:
            clock.publish(Clock(clock=to_message(case.clock())))

    def show() -> None:
        tick()
        pictures.publish(image(case.stamp()))
        camera.refresh()

    def outcome() -> str:
        """'' for a frame, else the reason why there is none."""
        try:
            camera.frame(MAX_AGE)
        except Refused as refused:
            return str(refused) if refused.code == Status.STALE_FRAME else name_of(refused.code)
        return ""

    # It lives: frames, or a reason that names the clock; in both cases the clock's trouble is told.
    def told() -> bool:
        """At one instant: a busy machine may be late with the next picture or tick."""
        problem = camera.problem(MAX_AGE)
        return case.said in problem and bool(problem) == (bool(case.said) or not case.answered)

    if case.answered:
        world.until(lambda: not outcome() and case.said in camera.trouble(MAX_AGE) and told(), show)
    else:
        world.until(lambda: case.said in (said := outcome()) and "old" in said and told(), show)
    # It dies. The node's clock goes on as before.
    world.node.destroy_publisher(pictures)

    def dead() -> bool:
        camera.refresh()
        told = outcome()
        return "nothing publishes" in told and case.said in told

    world.until(dead, tick)
    age = camera.age()
    assert age is not None and age > MAX_AGE
    assert case.said in camera.problem(MAX_AGE)
    assert not camera.frame(-1.0).image.any()  # any age will do: what was asked for
    camera.close()


@pytest.mark.parametrize("world", [True], indirect=True)
def test_a_slow_simulation_is_answered_about(world: World) -> None:
    """At a fifth of real time a camera of 5 Hz sends a picture each second: 0.2 s old at most in its time."""
    camera = Camera(world.node, "slow")
    pictures = world.node.create_publisher(type(image(0)), "slow/image", 1)
    clock = world.node.create_publisher(Clock, "/clock", 1)
    start, sent = wall(), 0

    def now() -> int:
        return 50 * S + (wall() - start) // 5

    def step() -> None:
        nonlocal sent
        clock.publish(Clock(clock=to_message(now())))
        if now() - sent > 0.2 * S:
            sent = now()
            pictures.publish(image(sent))
        camera.refresh()

    world.until(lambda: now() > 50.5 * S and camera.age() is not None, step)
    ages: list[float] = []
    world.until(lambda: ages.append(camera.age() or 0.0) or now() > 51 * S, step)
    assert max(ages) < 0.7  # in real time it would be 1
    camera.close()


def test_two_publishers_on_one_topic_are_named(world: World) -> None:
    camera = Camera(world.node, "both", transport="raw")
    one, two = (world.node.create_publisher(type(image(0)), "both/image", 1) for _ in range(2))

    turn = cycle([(one, 0.0), (two, -0.7)])

    def show() -> None:
        publisher, ahead = next(turn)
        publisher.publish(image(wall(ahead)))
        camera.refresh()

    world.until(lambda: "2 publishers send to /both/image (/cameras)" in camera.problem(3.0), show)
    frames = [world.until(lambda: camera.frame(3.0), show) for _ in range(20)]
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(stamps) and len({frame.run for frame in frames}) == 1
    world.node.destroy_publisher(two)
    world.until(lambda: not camera.problem(MAX_AGE), lambda: (one.publish(image(wall())), camera.refresh()))
    camera.close()


def test_the_frame_with_the_latest_stamp_is_the_newest_whichever_came_last(world: World) -> None:
    camera = Camera(world.node, "jitter", transport="raw")
    pictures = world.node.create_publisher(type(image(0)), "jitter/image", 1)
    base = wall()
    # A publisher may know the reader before that knows it: sent until one arrives, and that is the first.
    world.until(lambda: camera.age() is not None, lambda: (pictures.publish(image(base)), camera.refresh()))
    pictures.publish(image(base + S // 5))
    world.until(lambda: camera.frame(60.0).stamp_ns > base, camera.refresh)  # behind all that was sent before

    def taken(stamp_ns: int) -> None:
        count = camera.counters.taken
        pictures.publish(image(stamp_ns))
        world.until(lambda: camera.counters.taken > count, camera.refresh)

    for late in (100, 50):  # milliseconds
        taken(base + late * S // 1000)
    frame = camera.frame(60.0)
    assert frame.stamp_ns == base + S // 5 and frame.run == 0
    assert camera.frame(60.0) is frame  # and it is decoded once
    taken(base - 100 * S)
    assert camera.frame(-1.0).stamp_ns == base - 100 * S and camera.frame(-1.0).run == 1
    camera.close()
