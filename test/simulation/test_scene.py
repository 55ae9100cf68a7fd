# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import FAR, KINDS, NEAR, ROADSIDE, zone_of
from mobilevlm_ros.simulation.scene_sampler import sample_scene
from mobilevlm_ros.simulation.shapes import PALETTE


@given(seed=st.integers(0, 2**62), seconds=st.floats(0, 1e4))
@settings(max_examples=25, deadline=None)
def test_truth_holds_at_every_time(seed: int, seconds: float) -> None:
    scene = sample_scene(seed)
    for start, now in zip(scene.things, scene.at(seconds), strict=True):
        assert now.zone == start.zone
        assert now.is_near == start.is_near
        assert NEAR[0] - 0.01 <= now.distance <= FAR[1] + 0.01
        assert not (now.kind in ROADSIDE and now.zone == "ahead")


def test_same_seed_same_picture() -> None:
    first, second = (observe(sample_scene(12), 3.25, 320, 240) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert first.seen == second.seen


def test_different_seeds_differ() -> None:
    assert not np.array_equal(observe(sample_scene(1)).image, observe(sample_scene(2)).image)


def test_things_move() -> None:
    scene = next(s for s in map(sample_scene, range(50)) if any(t.sway for t in s.things))
    assert observe(scene, 0.0).seen != observe(scene, 1.0).seen


def test_every_kind_appears_and_is_in_plain_sight() -> None:
    kinds = set()
    for seed in range(120):
        for seen in observe(sample_scene(seed), 2.0, 320, 240).seen:
            kinds.add(seen.thing.kind)
            assert seen.visible > 0.4, (seed, seen)
    assert kinds == set(KINDS)


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (320, 180)])
def test_labels_box_and_zone_agree(size: tuple[int, int]) -> None:
    for seed in range(20):
        observation = observe(sample_scene(seed), 0.0, *size)
        assert observation.image.shape == (size[1], size[0], 3)
        for index, seen in enumerate(observation.seen):
            rows, columns = np.nonzero(observation.labels == index + 1)
            left, top, right, bottom = seen.box
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (
                left,
                top,
                right,
                bottom,
            )
            if seen.visible == 1.0 and 0 < left and right < size[0]:
                assert zone_of((left + right) / 2 / size[0]) == seen.thing.zone


def test_paint_is_what_the_truth_says() -> None:
    """By day, the typical pixel of a ball is closest to its own colour among all paints."""
    names = [name for name in PALETTE if name != "orange"]
    checked = 0
    for seed in range(200):
        observation = observe(sample_scene(seed))
        for index, seen in enumerate(observation.seen):
            if observation.light == "day" and seen.thing.kind == "ball" and seen.thing.is_near:
                typical = np.median(observation.image[observation.labels == index + 1], axis=0)
                nearest = min(names, key=lambda name: float(np.abs(typical - PALETTE[name]).sum()))
                assert nearest == seen.thing.color, seed
                checked += 1
    assert checked > 5


def test_tiny_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="16 x 16"):
        observe(sample_scene(1), width=8, height=8)
