# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from mobilevlm_ros.inference.monitoring.novelty import NoveltyGate, difference, thumbnail
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

THRESHOLD = 0.05  # what docs/monitors.md recommends


@pytest.mark.parametrize("seed", range(12))
def test_a_thing_that_comes_or_goes_is_news_and_sensor_noise_is_not(seed: int) -> None:
    scene = sample_scene(seed)
    if not scene.things:
        return
    still = replace(scene, noise=8.0, things=tuple(replace(t, sway=0.0, creep=0.0) for t in scene.things))
    gate = NoveltyGate()
    picture = observe(still, 0.0).image
    assert gate.opens(picture, THRESHOLD)  # the first
    gate.remember(picture)
    assert not gate.opens(observe(still, 1.0).image, THRESHOLD)  # other noise
    gone = replace(still, things=still.things[1:])
    assert gate.opens(observe(gone, 1.0).image, THRESHOLD)


def test_slow_changes_add_up() -> None:
    gate = NoveltyGate()
    opened = []
    for grey in range(100, 131):
        picture = np.full((48, 64, 3), grey, np.uint8)
        opened.append(gate.opens(picture, 10 / 255))
        if opened[-1]:
            gate.remember(picture)
    assert opened == [i % 10 == 0 for i in range(31)]


def test_without_a_threshold_or_a_picture_before_it_is_open() -> None:
    gate, picture = NoveltyGate(), np.zeros((8, 8, 3), np.uint8)
    gate.remember(picture)
    assert gate.opens(picture, 0.0) and not gate.opens(picture, 0.01)
    gate.forget()
    assert gate.opens(picture, 1.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (7, 5), (720, 1280)])
def test_pictures_of_any_size_compare_from_0_to_1(size: tuple[int, int]) -> None:
    black, white = (thumbnail(np.full((*size, 3), value, np.uint8)) for value in (0, 255))
    assert difference(black, white) == 1.0 and difference(black, black) == 0.0
