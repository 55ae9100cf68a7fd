# SPDX-License-Identifier: Apache-2.0
"""The camera of soak.py: scenes rendered ahead: to render 720p at 30 Hz costs more than a core."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from soak_scenes import Reel, picture

from mobilevlm_ros.nodes.camera_node import CameraNode
from mobilevlm_ros.ros import spin
from mobilevlm_ros.ros.resources import profile_environment


class StillCamera(CameraNode):
    """A `camera_node` with the parameter `scenes`; each is shown still for `scene_seconds`."""

    def __init__(self) -> None:
        super().__init__("soak_camera")
        self._pictures = [np.array(picture(self._reel.seed + index)) for index in range(self._reel.scenes)]

    def _description(self, seed: int, photo: str) -> dict[str, Any]:
        scenes = self._parameter("scenes", 64, "Scenes rendered ahead.")
        seconds = self.get_parameter("scene_seconds").value
        self._reel = Reel(seed, scenes, seconds, self._start_ns)
        return {**super()._description(seed, photo), "scenes": scenes}

    def _picture(self, seconds: float) -> Any:
        return self._pictures[self._reel.number(seconds)]


if __name__ == "__main__":
    os.environ.update(profile_environment(os.environ))
    sys.exit(spin.run(StillCamera))
