# SPDX-License-Identifier: Apache-2.0
"""Where a frame was in another one, from what /tf and /tf_static say (REP 105; tf2).

tf2's own library needs ROS, and recordings are read without. What is needed of it is little: the position of
a camera in a frame above it, at the time of a picture.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import BagError
from mobilevlm_ros.memory.record import Position
from mobilevlm_ros.memory.track import NEAR_ENOUGH

CLOSEST = 20_000_000
"""Nanoseconds between the transforms of a frame that are kept: joints that are told 1 000 times a second
would fill the memory, and what lies between is interpolated.
"""

_DEEPEST = 100
"""Frames above each other; more is taken for a circle."""

_NUMBERS = 7
"""Of a transform: shift x, y, z and unit quaternion x, y, z, w."""


@dataclass
class _Link:
    """How a frame lies in its parent: by time, or always the same."""

    parent: str
    fixed: bool
    times: array[int] = field(default_factory=lambda: array("q"))
    poses: array[float] = field(default_factory=lambda: array("d"))

    def put(self, time_ns: int, pose: array[float]) -> None:
        """Take a transform; they may come in any order."""
        at = bisect_right(self.times, time_ns)
        if self.fixed:
            self.times, self.poses = array("q", [time_ns]), pose
        elif at and time_ns == self.times[at - 1]:
            self.poses[_NUMBERS * (at - 1) : _NUMBERS * at] = pose
        elif not at or time_ns - self.times[at - 1] >= CLOSEST:
            self.times.insert(at, time_ns)
            self.poses[_NUMBERS * at : _NUMBERS * at] = pose

    def pose(self, at: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shift [3] and unit quaternion [4] of the transform of number `at`."""
        numbers = np.array(self.poses[_NUMBERS * at : _NUMBERS * (at + 1)])
        return numbers[:3], numbers[3:]


class Transforms:
    """A tree of frames over time. One thread at a time."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def add(self, transforms: Iterable[Any], static: bool) -> int:
        """Take the transforms of a tf2_msgs/TFMessage; how many of them cannot be used: no numbers, or no
        rotation.

        Args:
            transforms: of type geometry_msgs/TransformStamped.
            static: they came on /tf_static, and hold for all times.
        """
        bad = 0
        for told in transforms:
            moved, turned = told.transform.translation, told.transform.rotation
            numbers = np.array([moved.x, moved.y, moved.z, turned.x, turned.y, turned.z, turned.w])
            length = float(np.linalg.norm(numbers[3:]))
            child, parent = _name(told.child_frame_id), _name(told.header.frame_id)
            if not np.isfinite(numbers).all() or length < 1e-3 or child == parent:
                bad += 1
                continue
            numbers[3:] /= length
            link = self._links.get(child)
            if link is None or link.parent != parent or link.fixed != static:
                link = self._links[child] = _Link(parent, static)  # it hangs elsewhere now
            stamp = told.header.stamp
            link.put(int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec), array("d", numbers))
        return bad

    @property
    def frames(self) -> list[str]:
        """All frames that something hangs in: those that positions can be told in."""
        return sorted({link.parent for link in self._links.values()})

    def position(self, frame: str, above: str, time_ns: int) -> Position | None:
        """Where the origin of `frame` was in the frame `above` it at a time; None where that is not known:
        another tree, or no transform within NEAR_ENOUGH.

        Between two transforms it is interpolated as tf2 does: shifts linearly, rotations on the sphere.
        """
        point = np.zeros(3)
        child = _name(frame)
        for _ in range(_DEEPEST):
            if child == _name(above):
                return Position(child, *map(float, point))
            link = self._links.get(child)
            pose = None if link is None else _pose(link, time_ns)
            if link is None or pose is None:
                return None
            shift, turn = pose
            point = _turned(turn, point) + shift
            child = link.parent
        return None


def check_frame(transforms: Transforms, above: str, where: str) -> None:
    """Raises BagError where nothing hangs in the frame `above`, with those that something hangs in."""
    if _name(above) not in transforms.frames:
        there = ", ".join(transforms.frames) or "none: there is no /tf and no /tf_static"
        raise BagError(f"{where} has no transform into the frame {above!r}: frames there are: {there}")


def _name(frame: str) -> str:
    return str(frame).lstrip("/")  # tf of ROS 1 had slashes before


def _pose(link: _Link, time_ns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if link.fixed:
        return link.pose(0)
    times = link.times
    right = bisect_left(times, time_ns)
    near = [i for i in (right - 1, right) if 0 <= i < len(times) and abs(times[i] - time_ns) <= NEAR_ENOUGH]
    if len(near) < 2:
        return link.pose(near[0]) if near else None
    one, other = near
    share = (time_ns - times[one]) / (times[other] - times[one])
    (shift, turn), (to_shift, to_turn) = link.pose(one), link.pose(other)
    return shift + share * (to_shift - shift), _between(turn, to_turn, share)


def _between(one: NDArray[np.float64], other: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Unit quaternion [4] between two, on the shorter way (slerp: Shoemake, SIGGRAPH 1985)."""
    cosine = float(one @ other)
    if cosine < 0:
        other, cosine = -other, -cosine
    if cosine > 0.9995:  # so near that a line does
        mixed = one + share * (other - one)
        return np.asarray(mixed / np.linalg.norm(mixed))
    angle = np.arccos(cosine)
    return np.asarray((np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle))


def _turned(turn: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point [3] turned by the unit quaternion (x, y, z, w)."""
    axis, w = turn[:3], turn[3]
    across = 2.0 * np.cross(axis, point)
    return np.asarray(point + w * across + np.cross(axis, across))
