# SPDX-License-Identifier: Apache-2.0
"""What stands in front of the simulated vehicle, drawn from a seed and moving with time.

Geometry is a pinhole camera 1.2 m above flat ground, looking forward, 70 degrees wide.
Horizontal places are given as `bearing`: the fraction of the image width, 0 at the left edge, 1 at the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

KINDS = ("ball", "box", "car", "cone", "person", "stop sign", "traffic light")
EXTRA_KINDS = ("shuttle",)
"""Drawn only where they are asked for: the scenes of a seed stay as they are, and nano has never seen
them."""
PAINTS = ("red", "green", "blue", "yellow", "white", "purple")
LIGHT_STATES = ("red", "yellow", "green")
ROADSIDE = ("stop sign", "traffic light")

FOCAL = 0.5 / math.tan(math.radians(35.0))  # focal length in image widths
CAMERA_HEIGHT = 1.2  # metres
NEAR = (3.5, 6.0)  # metres; the gap up to FAR keeps "near" and "far" unambiguous
FAR = (9.5, 13.0)
LEFT_EDGE, RIGHT_EDGE = 0.36, 0.64  # bearings that separate left, ahead and right
MAX_THINGS = 3

# width and height in metres, and height of the lower edge above the ground (posts reach down to it)
SIZES: dict[str, tuple[float, float, float]] = {
    "ball": (1.0, 1.0, 0.0),
    "box": (1.15, 1.0, 0.0),
    "car": (2.0, 1.5, 0.0),
    "cone": (0.9, 1.15, 0.0),
    "person": (0.7, 1.75, 0.0),
    "stop sign": (1.0, 1.0, 1.4),
    "traffic light": (0.75, 1.8, 1.1),
    "shuttle": (2.4, 2.9, 0.0),
}
SLOTS = {"left": (0.10, 0.25), "ahead": (0.45, 0.55), "right": (0.75, 0.90)}


def zone_of(bearing: float) -> str:
    """Name of the third of the view a bearing falls in: left, ahead or right."""
    if bearing < LEFT_EDGE:
        return "left"
    return "right" if bearing > RIGHT_EDGE else "ahead"


@dataclass(frozen=True)
class SceneObject:
    """One object: what it is, where it stands, and how it sways about that place."""

    kind: str
    color: str
    bearing: float
    distance: float  # metres
    sway: float = 0.0  # amplitude, in image widths
    creep: float = 0.0  # amplitude along the line of sight, metres
    period: float = 6.0  # seconds
    phase: float = 0.0  # radians
    variant: int = 0  # picks skin, trousers, face of a box, ...

    @property
    def zone(self) -> str:
        return zone_of(self.bearing)

    @property
    def is_near(self) -> bool:
        return self.distance < (NEAR[1] + FAR[0]) / 2

    def at(self, seconds: float) -> SceneObject:
        """The same thing where it is `seconds` after the start of the scene."""
        angle = 2 * math.pi * seconds / self.period + self.phase
        return replace(
            self,
            bearing=self.bearing + self.sway * math.sin(angle),
            distance=self.distance + self.creep * math.cos(angle),
        )


@dataclass(frozen=True)
class Scene:
    """A whole scene. The same seed gives the same pictures and the same truth at every time."""

    seed: int
    things: tuple[SceneObject, ...]
    light: str  # "day" or "dusk"
    noise: float  # standard deviation, grey levels
    blur: float  # Gaussian sigma as a fraction of the image width
    exposure: float

    def at(self, seconds: float) -> tuple[SceneObject, ...]:
        """Things where they are at a time, in seconds since the start of the scene."""
        return tuple(thing.at(seconds) for thing in self.things)
