# SPDX-License-Identifier: Apache-2.0
"""Which frames of the recent past a question about several is about."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.nodes.cameras.frame_window import shortage, window
from mobilevlm_ros.nodes.cameras.image_buffer import ImageBuffer, StampedImage

MS = 1_000_000


def kept(stamp_ms: int, arrived: float = 0.0, run: int = 0) -> StampedImage:
    return StampedImage(SimpleNamespace(data=b"."), stamp_ms * MS, arrived, run=run)


def stamps(found: list[StampedImage]) -> list[int]:
    return [image.stamp_ns // MS for image in found]


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2)), min_size=1, max_size=30),
    st.integers(2, 6),
    st.sampled_from([0.0, 0.1, 0.25, 0.5]),
)
def test_they_are_of_one_run_in_order_and_end_with_the_one_asked_about(
    images: list[tuple[int, int]], count: int, interval: float
) -> None:
    held = [kept(stamp, float(place), run) for place, (stamp, run) in enumerate(images)]
    for end in held:
        found = window(held, end, count, interval)
        assert found[-1] is end and len(found) <= count
        assert len(set(map(id, found))) == len(found)
        assert stamps(found) == sorted(stamps(found)) and {image.run for image in found} == {end.run}
        if interval:
            for image in found[:-1]:
                places = (end.stamp_ns - image.stamp_ns) / (interval * 1e9)
                assert round(places) >= 1 and abs(places - round(places)) < 0.5 + 1e-9
        else:
            earlier = [image for image in held if image.run == end.run and image.stamp_ns < end.stamp_ns]
            assert len(found) >= min(count, len(earlier) + 1)


def test_the_nearest_frame_of_each_instant() -> None:
    held = [kept(stamp) for stamp in (0, 190, 420, 610, 790, 1000)]
    assert stamps(window(held, held[-1], 3, 0.4)) == [190, 610, 1000]
    assert stamps(window(held, held[-1], 3, 0.0)) == [610, 790, 1000]
    assert stamps(window(held, held[3], 2, 0.2)) == [420, 610]
    assert stamps(window(held, held[-1], 3, 2.0)) == [1000]


def test_frames_that_overtook_each_other_are_in_the_order_of_their_stamps() -> None:
    history = ImageBuffer(1 << 20)
    for place, stamp in enumerate((100, 300, 200, 400)):
        history.add(kept(stamp, place * 0.1))
    assert history.latest is not None
    assert stamps(window(history, history.latest, 4)) == [100, 200, 300, 400]


def test_the_reason_has_the_numbers_and_the_parameters() -> None:
    held = [kept(0), kept(500)]
    near = shortage("camera 'front'", 2, held, 4, 0.0)
    assert near.startswith("camera 'front' keeps 2 frames up to the one that is asked about, and 4 ")
    assert "history_mb" in near
    apart = shortage("camera 'front'", 9, held, 4, 0.5)
    assert "keeps 9 frames, of which 2 are 0.5 s apart, and 4 are wanted (1.5 s in all)" in apart
    assert "history_mb" in apart and "history_rate" in apart
