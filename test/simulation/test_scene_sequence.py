# SPDX-License-Identifier: Apache-2.0
import pytest

from mobilevlm_ros.simulation.scene_sampler import sample_scene
from mobilevlm_ros.simulation.scene_sequence import SceneSequence


def test_without_a_length_the_first_scene_stays() -> None:
    journey = SceneSequence(7)
    assert journey.at(0.0) == (sample_scene(7), 0.0) and journey.at(1e6) == (sample_scene(7), 1e6)


@pytest.mark.parametrize("seconds", [0.0, 3.9, 4.0, 9.5, 1.0, -0.5])
def test_each_seed_has_its_time_in_any_order(seconds: float) -> None:
    journey = SceneSequence(7, 4.0)
    journey.at(20.0)
    number = max(0, int(seconds // 4))
    assert journey.at(seconds) == (sample_scene(7 + number), pytest.approx(seconds - 4 * number))
