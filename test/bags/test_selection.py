# SPDX-License-Identifier: Apache-2.0
"""Which cameras and which moments are meant."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.recordings import SECOND, Picture, grey, image, write_ros2
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.selection.cameras import BagCamera, find_cameras
from mobilevlm_ros.bags.selection.frames import Selection, Tally, select
from mobilevlm_ros.bags.selection.time_range import moment, time_range
from mobilevlm_ros.errors import BagError, OptionError

RGB = grey([80])[0]
ONE: list[Picture] = [(SECOND, SECOND, image(RGB))]
PACKED: list[Picture] = [(SECOND, SECOND, {"format": "jpeg", "data": image(RGB)["data"][:9]})]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bag]:
    topics = {
        "/front/image_raw": ONE,
        "/front/image_raw/compressed": PACKED,
        "/rear/image/compressed": PACKED,
        "/front/depth/image_raw": ONE,
    }
    with Bag(write_ros2(tmp_path_factory.mktemp("cameras") / "bag", topics)) as opened:
        yield opened


def test_every_colour_camera_and_raw_before_compressed(bag: Bag) -> None:
    assert find_cameras(bag) == [
        BagCamera("front", "/front/image_raw"),
        BagCamera("rear", "/rear/image/compressed"),
    ]


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("/front/image_raw", BagCamera("front", "/front/image_raw")),
        ("front/image_raw", BagCamera("front", "/front/image_raw")),
        ("rear", BagCamera("rear", "/rear/image/compressed")),
        ("eye=/front/image_raw/compressed", BagCamera("eye", "/front/image_raw/compressed")),
        ("/front/depth/image_raw", BagCamera("front/depth", "/front/depth/image_raw")),
    ],
)
def test_a_camera_by_topic_or_name(bag: Bag, entry: str, wanted: BagCamera) -> None:
    assert find_cameras(bag, [entry]) == [wanted]


def test_what_is_not_there_is_said_with_what_is(bag: Bag) -> None:
    with pytest.raises(BagError, match=r"'/nose'.*/front/image_raw \(1 images\).*/rear/image/compressed"):
        find_cameras(bag, ["/nose"])
    with pytest.raises(OptionError, match="two cameras have the name"):
        find_cameras(bag, ["front", "/front/image_raw/compressed"])


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


NOON = 1_767_268_800  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("90", 90.0), ("1.5", 1.5), ("-2", -2.0),
        ("12:03", 180.0), ("12:03:20", 200.0), ("12:03:20.5", 200.5), ("11:59", -60.0), ("00:10", 43800.0),
        ("2026-01-01T12:00:30", 30.0), ("2026-01-01 12:00:30", 30.0), ("2026-01-01T12:00:30Z", 30.0),
        ("2026-01-01T13:00:30+01:00", 30.0),
        (str(NOON + 7), 7.0), (f"{NOON + 7}.25", 7.25), (str((NOON + 7) * SECOND), 7.0),
    ],
)  # fmt: skip
def test_moments(text: str, seconds: float, utc: None) -> None:
    start, end = NOON * SECOND, (NOON + 13 * 3600) * SECOND  # past midnight
    assert (moment(text, start, end) - start) / SECOND == pytest.approx(seconds, abs=1e-6)


@given(st.text(max_size=12))
def test_any_text_is_a_moment_or_a_named_error(text: str) -> None:
    with contextlib.suppress(OptionError):
        assert isinstance(moment(text, NOON * SECOND, None), int)


def test_the_end_is_after_the_start(bag: Bag) -> None:
    assert time_range(bag, "1", "2") == (2 * SECOND, 3 * SECOND)
    with pytest.raises(OptionError, match="--to 1 lies before --from 2"):
        time_range(bag, "2", "1")


@given(
    st.lists(st.integers(-4_000_000, 4_000_000), min_size=40, max_size=60), st.sampled_from([0.1, 0.25, 1.0])
)
def test_a_period_does_not_drift(jitter: list[int], every: float) -> None:
    """20 Hz with 4 ms of jitter: in each period one frame, however long it goes on."""
    from mobilevlm_ros.bags.selection.frames import _Clock

    clock = _Clock((every,))
    taken = []
    for number, off in enumerate(jitter):
        now = SECOND + number * SECOND // 20 + off
        assert not clock.jumped(now)
        if due := clock.due(now):
            clock.take(now, due)
            taken.append(now)
    start = taken[0]
    periods = [(now - start) // round(every * SECOND) for now in taken]
    assert periods == list(range(len(periods)))
    assert len(taken) >= (len(jitter) - 1) // 20 / every - 1


def test_selection_is_the_same_each_time(tmp_path: Path) -> None:
    rng_levels = [40, 40, 90, 90, 40, 41, 42, 120]
    made: list[Picture] = [
        (i * SECOND, i * SECOND, image(rgb)) for i, rgb in enumerate(grey(rng_levels), start=1)
    ]
    path = write_ros2(tmp_path / "bag", {"/image": made})
    selection = Selection((BagCamera("", "/image"),), {"": (0.0,)}, novelty=0.05)
    for _ in range(2):
        tally = Tally()
        with Bag(path) as bag:
            found = [(s.number, s.index) for s in select(bag, selection, tally)]
        assert found == [(0, 0), (1, 2), (2, 4), (3, 7)]
        assert (tally.pictures, tally.selected, tally.unchanged, tally.bad) == (8, 4, 4, 0)
