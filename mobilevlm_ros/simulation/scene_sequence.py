# SPDX-License-Identifier: Apache-2.0
"""Scenes one after the other, as a vehicle meets them."""

from __future__ import annotations

from mobilevlm_ros.simulation.scene import Scene
from mobilevlm_ros.simulation.scene_sampler import sample_scene


class SceneSequence:
    """The scenes of seed, seed + 1, ..., each for `scene_seconds`; 0: the first one for ever."""

    def __init__(self, seed: int, scene_seconds: float = 0.0) -> None:
        self.seed = seed
        self.scene_seconds = scene_seconds
        self._scene = sample_scene(seed)

    def at(self, seconds: float) -> tuple[Scene, float]:
        """The scene of a time in seconds since the start, and the seconds since that scene began."""
        if self.scene_seconds <= 0:
            return self._scene, seconds
        number = max(0, int(seconds // self.scene_seconds))
        if self._scene.seed != self.seed + number:
            self._scene = sample_scene(self.seed + number)
        return self._scene, seconds - number * self.scene_seconds
