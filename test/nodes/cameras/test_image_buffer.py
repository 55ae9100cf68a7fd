# SPDX-License-Identifier: Apache-2.0
"""The recent past of a camera."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.nodes.cameras.image_buffer import JITTER_NS, ImageBuffer, StampedImage

SECOND = 1_000_000_000


def kept(stamp_ns: int, size: int = 10) -> StampedImage:
    return StampedImage(SimpleNamespace(data=bytes(size)), stamp_ns)


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 900), st.integers(0, 40))))
def test_it_holds_the_newest_ones_within_its_budget(budget: int, images: list[tuple[int, int]]) -> None:
    """Stamps within the jitter: nothing counts as a jump back."""
    history = ImageBuffer(budget)
    added = [kept(stamp * 1_000_000, size) for stamp, size in images]
    for image in added:
        history.add(image)
    assert history.newest is (added[-1] if added else None)
    held = added[len(added) - len(history) :]
    assert len(history) == 1 or sum(len(image.message.data) for image in held) <= budget
    older = added[: len(added) - len(history)]
    if older:  # it gave up no more than it had to
        assert sum(len(image.message.data) for image in (older[-1], *held)) > budget


@given(st.lists(st.integers(0, 900), min_size=1), st.integers(-2000, 2000))
def test_the_nearest_stamp_is_found(stamps: list[int], wanted: int) -> None:
    history = ImageBuffer(1 << 20)
    for stamp in stamps:
        history.add(kept(stamp))
    found = history.nearest(wanted)
    assert found is not None
    assert abs(found.stamp_ns - wanted) == min(abs(stamp - wanted) for stamp in stamps)


def test_a_loop_of_a_bag_forgets_the_run_before() -> None:
    history = ImageBuffer(1 << 20)
    for stamp in (10 * SECOND, 11 * SECOND, 12 * SECOND):
        history.add(kept(stamp))
    history.add(kept(12 * SECOND - JITTER_NS))  # overtaken on the way: not a jump
    assert len(history) == 4
    again = kept(10 * SECOND)
    history.add(again)
    assert len(history) == 1 and history.nearest(12 * SECOND) is again


def test_before_the_first_image_there_is_none() -> None:
    history = ImageBuffer()
    assert history.newest is None and history.nearest(0) is None
