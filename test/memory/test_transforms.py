# SPDX-License-Identifier: Apache-2.0
"""Places out of transforms, against SciPy's rotations."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.errors import BagError
from mobilevlm_ros.memory.record import Position
from mobilevlm_ros.memory.track import NEAR_ENOUGH, Track
from mobilevlm_ros.memory.transforms import Transforms, check_frame

S = 1_000_000_000
numbers = st.floats(-50, 50)
poses = st.tuples(
    st.tuples(numbers, numbers, numbers),
    st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1),
)


def told(parent: str, child: str, pose: Any, time_ns: int = 0) -> Any:
    (x, y, z), turned = pose
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=SimpleNamespace(sec=time_ns // S, nanosec=time_ns % S)),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(x=x, y=y, z=z),
            rotation=SimpleNamespace(**dict(zip("xyzw", turned))),
        ),
    )


@settings(max_examples=50, deadline=None)
@given(pose=st.lists(poses, min_size=4, max_size=4), share=st.floats(0, 1))
def test_a_chain_of_moving_and_fixed_frames_is_what_scipy_says(pose: Any, share: float) -> None:
    rotation = pytest.importorskip("scipy.spatial.transform")
    tree = Transforms()
    assert tree.add([told("/map", "odom", pose[0])], static=True) == 0
    tree.add([told("odom", "base", pose[1], 4 * S), told("odom", "base", pose[2], 4 * S + S // 2)], False)
    tree.add([told("base", "/camera", pose[3])], static=True)
    at = 4 * S + round(share * S / 2)
    exact = (at - 4 * S) / (S / 2)
    between = rotation.Slerp([0, 1], rotation.Rotation.from_quat([pose[1][1], pose[2][1]]))(exact)
    moved = (1 - exact) * np.array(pose[1][0]) + exact * np.array(pose[2][0])
    expected = rotation.Rotation.from_quat(pose[0][1]).apply(between.apply(pose[3][0]) + moved) + pose[0][0]
    place = tree.position("camera", "/map", at)
    assert place is not None and place.frame == "map"
    turns = np.dot(pose[1][1], pose[2][1]) / np.linalg.norm(pose[1][1]) / np.linalg.norm(pose[2][1])
    if abs(turns) > 0.01:  # else both ways round are as short
        np.testing.assert_allclose((place.x, place.y, place.z), expected, rtol=1e-5, atol=1e-4)


def test_what_is_not_known_is_not_told() -> None:
    tree = Transforms()
    ahead = ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    tree.add([told("odom", "base", ahead, 10 * S)], False)
    assert tree.position("base", "odom", 10 * S + NEAR_ENOUGH) == Position("odom", 1.0, 0.0, 0.0)
    assert tree.position("base", "odom", 10 * S + NEAR_ENOUGH + 1) is None, "too long ago"
    assert tree.position("base", "map", 10 * S) is None
    assert tree.position("wheel", "odom", 10 * S) is None
    assert tree.position("", "odom", 10 * S) is None
    tree.add([told("base", "odom", ahead, 10 * S)], False)
    assert tree.position("base", "map", 10 * S) is None, "a circle"
    bad = [((float("nan"), 0.0, 0.0), ahead[1]), (ahead[0], (0.0, 0.0, 0.0, 0.0))]
    assert tree.add([told("odom", "base", pose, 11 * S) for pose in bad], False) == 2
    assert tree.add([told("odom", "odom", ahead)], True) == 1
    with pytest.raises(BagError, match=r"frame 'map': frames there are: base, odom"):
        check_frame(tree, "map", "drive.mcap")
    with pytest.raises(BagError, match="no /tf"):
        check_frame(Transforms(), "map", "drive.mcap")


def test_the_nearest_position_in_time_counts() -> None:
    track = Track(most=3)
    assert track.at(0) is None
    for second in (1, 3, 2):
        track.add(second * S, Position("odom", float(second), 0.0))
    assert [track.at(at) for at in (int(1.4 * S), int(1.6 * S), 3 * S + NEAR_ENOUGH)] == [
        Position("odom", float(second), 0.0) for second in (1, 2, 3)
    ]
    assert track.at(3 * S + NEAR_ENOUGH + 1) is None and track.at(S - NEAR_ENOUGH - 1) is None
    track.add(3 * S, Position("odom", 9.0, 0.0))
    assert track.at(3 * S) == Position("odom", 9.0, 0.0) and len(track) == 3
    for second in range(4, 100):
        track.add(second * S, Position("odom", 0.0, 0.0))
    assert len(track) <= 6 and track.at(99 * S) is not None and track.at(50 * S) is None
