# SPDX-License-Identifier: Apache-2.0
"""Draws a scene from a seed: what stands where, in which colour and light."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mobilevlm_ros.simulation.render import clearly_visible
from mobilevlm_ros.simulation.scene import (
    FAR,
    FOCAL,
    KINDS,
    LIGHT_STATES,
    MAX_THINGS,
    NEAR,
    PAINTS,
    ROADSIDE,
    SIZES,
    SLOTS,
    Scene,
    SceneObject,
)


def sample_scene(seed: int, kinds: Sequence[str] = KINDS) -> Scene:
    """Draw the scene of a seed. Things overlap now and then, but none hides another.

    `kinds` are equally likely; a kind named twice is twice as likely.
    """
    rng = np.random.default_rng([seed, 0x5CE11E])
    while True:
        scene = Scene(
            seed=seed,
            things=_sample_things(rng, kinds),
            light="dusk" if rng.random() < 0.3 else "day",
            noise=float(rng.uniform(0, 10)) if rng.random() < 0.5 else 0.0,
            blur=float(rng.uniform(0, 0.0025)) if rng.random() < 0.3 else 0.0,
            exposure=float(rng.uniform(0.88, 1.12)),
        )
        if clearly_visible(scene):
            return scene


def _sample_things(rng: np.random.Generator, choices: Sequence[str]) -> tuple[SceneObject, ...]:
    count = int(rng.choice(MAX_THINGS + 1, p=(0.07, 0.25, 0.33, 0.35)))
    kinds: list[str] = []
    for _ in range(count):
        again = kinds and rng.random() < 0.35  # counting needs several of a kind
        kinds.append(kinds[-1] if again else str(rng.choice(choices)))
    free = [(zone, slot) for zone, slots in SLOTS.items() for slot in slots]
    things: list[SceneObject] = []
    for kind in kinds:
        usable = [place for place in free if not (kind in ROADSIDE and place[0] == "ahead")]
        zone, slot = usable[int(rng.integers(len(usable)))]
        free.remove((zone, slot))
        things.append(sample_thing(rng, kind, zone, slot))
    return tuple(things)


def sample_thing(rng: np.random.Generator, kind: str, zone: str, slot: float) -> SceneObject:
    """A thing of a kind in one of the SLOTS of a zone; colour, distance and movement are drawn."""
    nearest, farthest = NEAR if rng.random() < 0.55 else FAR
    if nearest == NEAR[0] and kind in ("car", "shuttle", *ROADSIDE):
        nearest = 4.7  # closer, and they would leave the picture
    creep = float(rng.uniform(0.1, 0.4))
    distance = float(rng.uniform(nearest + creep, farthest - creep))
    sway = 0.0 if kind in ROADSIDE else float(rng.uniform(0.003, 0.015))
    half_width = SIZES[kind][0] * FOCAL / distance / 2
    bearing = slot + float(rng.uniform(-0.025, 0.025))
    if zone != "ahead":
        inside = half_width + sway
        bearing = min(max(bearing, min(inside, 0.3)), max(1 - inside, 0.7))
    return SceneObject(
        kind=kind,
        color=sample_color(rng, kind),
        bearing=bearing,
        distance=distance,
        sway=sway,
        creep=0.0 if kind in ROADSIDE else creep,
        period=float(rng.uniform(4.0, 9.0)),
        phase=float(rng.uniform(0, 2 * math.pi)),
        variant=int(rng.integers(1 << 16)),
    )


def sample_color(rng: np.random.Generator, kind: str) -> str:
    """One of the colours that a kind comes in."""
    if kind == "cone":
        return "orange"
    if kind == "stop sign":
        return "red"
    return str(rng.choice(LIGHT_STATES if kind == "traffic light" else PAINTS))
