# SPDX-License-Identifier: Apache-2.0
"""What stands in front of the simulated vehicle, drawn from a seed and moving with time.

Geometry is a pinhole camera 1.2 m above flat ground, looking forward, 70 degrees wide.
Horizontal places are given as `bearing`: the fraction of the image width, 0 at the left edge, 1 at the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

KINDS = ("ball", "box", "car", "cone", "person", "stop sign", "traffic light")
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
}
_SLOTS = {"left": (0.10, 0.25), "ahead": (0.45, 0.55), "right": (0.75, 0.90)}


def zone_of(bearing: float) -> str:
    """Name of the third of the view a bearing falls in: left, ahead or right."""
    if bearing < LEFT_EDGE:
        return "left"
    return "right" if bearing > RIGHT_EDGE else "ahead"


@dataclass(frozen=True)
class Thing:
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

    def at(self, seconds: float) -> Thing:
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
    things: tuple[Thing, ...]
    light: str  # "day" or "dusk"
    noise: float  # standard deviation, grey levels
    blur: float  # Gaussian sigma as a fraction of the image width
    exposure: float

    @classmethod
    def sample(cls, seed: int) -> Scene:
        """Draw the scene of a seed. Things overlap now and then, but none hides another."""
        from mobilevlm_ros.simulation.render import clearly_visible  # the renderer needs this module

        rng = np.random.default_rng([seed, 0x5CE11E])
        while True:
            scene = cls(
                seed=seed,
                things=_sample_things(rng),
                light="dusk" if rng.random() < 0.3 else "day",
                noise=float(rng.uniform(0, 10)) if rng.random() < 0.5 else 0.0,
                blur=float(rng.uniform(0, 0.0025)) if rng.random() < 0.3 else 0.0,
                exposure=float(rng.uniform(0.88, 1.12)),
            )
            if clearly_visible(scene):
                return scene

    def at(self, seconds: float) -> tuple[Thing, ...]:
        """Things where they are at a time, in seconds since the start of the scene."""
        return tuple(thing.at(seconds) for thing in self.things)


def _sample_things(rng: np.random.Generator) -> tuple[Thing, ...]:
    count = int(rng.choice(MAX_THINGS + 1, p=(0.07, 0.25, 0.33, 0.35)))
    kinds: list[str] = []
    for _ in range(count):
        again = kinds and rng.random() < 0.35  # counting needs several of a kind
        kinds.append(kinds[-1] if again else str(rng.choice(KINDS)))
    free = [(zone, slot) for zone, slots in _SLOTS.items() for slot in slots]
    things: list[Thing] = []
    for kind in kinds:
        usable = [place for place in free if not (kind in ROADSIDE and place[0] == "ahead")]
        zone, slot = usable[int(rng.integers(len(usable)))]
        free.remove((zone, slot))
        things.append(_sample_thing(rng, kind, zone, slot))
    return tuple(things)


def _sample_thing(rng: np.random.Generator, kind: str, zone: str, slot: float) -> Thing:
    nearest, farthest = NEAR if rng.random() < 0.55 else FAR
    if nearest == NEAR[0] and kind in ("car", *ROADSIDE):
        nearest = 4.7  # closer, and they would leave the picture
    creep = float(rng.uniform(0.1, 0.4))
    distance = float(rng.uniform(nearest + creep, farthest - creep))
    sway = 0.0 if kind in ROADSIDE else float(rng.uniform(0.003, 0.015))
    half_width = SIZES[kind][0] * FOCAL / distance / 2
    bearing = slot + float(rng.uniform(-0.025, 0.025))
    if zone != "ahead":
        inside = half_width + sway
        bearing = min(max(bearing, min(inside, 0.3)), max(1 - inside, 0.7))
    return Thing(
        kind=kind,
        color=_sample_color(rng, kind),
        bearing=bearing,
        distance=distance,
        sway=sway,
        creep=0.0 if kind in ROADSIDE else creep,
        period=float(rng.uniform(4.0, 9.0)),
        phase=float(rng.uniform(0, 2 * math.pi)),
        variant=int(rng.integers(1 << 16)),
    )


def _sample_color(rng: np.random.Generator, kind: str) -> str:
    if kind == "cone":
        return "orange"
    if kind == "stop sign":
        return "red"
    return str(rng.choice(LIGHT_STATES if kind == "traffic light" else PAINTS))
