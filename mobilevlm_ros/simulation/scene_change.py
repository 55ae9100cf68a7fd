# SPDX-License-Identifier: Apache-2.0
"""One thing of a scene moves, appears, disappears or takes another colour: two pictures with a known
difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mobilevlm_ros.simulation.render import Observation, clearly_visible, observe
from mobilevlm_ros.simulation.scene import KINDS, MAX_THINGS, ROADSIDE, SLOTS, SceneObject
from mobilevlm_ros.simulation.scene_sampler import sample_color, sample_scene, sample_thing

CHANGES = ("none", "moved", "appeared", "disappeared", "recolored")
_SIGHT = 1.3
"""Seconds between the two looks that a change is judged by at least; things sway meanwhile."""


@dataclass(frozen=True)
class SceneChange:
    """What happened between two pictures.

    `what` is one of CHANGES; `before` and `after` are the thing it happened to, None where it is not there.
    """

    what: str
    before: SceneObject | None = None
    after: SceneObject | None = None


@dataclass(frozen=True)
class PicturePair:
    """Two pictures of one place, the earlier first, and what changed between them."""

    first: Observation
    second: Observation
    change: SceneChange


def sample_pair(seed: int, width: int = 320, height: int = 240) -> PicturePair:
    """The pair of a seed: each change is equally likely, up to what the scene allows. Deterministic."""
    rng = np.random.default_rng([seed, 0x9A12])
    before = sample_scene(seed)
    wanted = str(rng.choice(CHANGES))
    change, after = SceneChange("none"), before
    for _ in range(20):  # a place may be taken or hidden: draw again
        change, things = _CHANGERS[wanted](before.things, rng)
        after = replace(before, things=things)
        if clearly_visible(after):
            break
    else:
        change, after = SceneChange("none"), before
    begin = float(rng.uniform(0, 30))
    later = begin + float(rng.uniform(_SIGHT, 20))
    return PicturePair(observe(before, begin, width, height), observe(after, later, width, height), change)


Things = tuple[SceneObject, ...]


def _nothing(things: Things, _: np.random.Generator) -> tuple[SceneChange, Things]:
    return SceneChange("none"), things


def _move(things: Things, rng: np.random.Generator) -> tuple[SceneChange, Things]:
    movable = _alone(things, KINDS)
    if not movable:
        return _nothing(things, rng)
    old = movable[int(rng.integers(len(movable)))]
    places = [place for place in _free(things, old.kind) if place[0] != old.zone]
    if not places:
        return _nothing(things, rng)
    zone, slot = places[int(rng.integers(len(places)))]
    drawn = sample_thing(rng, old.kind, zone, slot)
    new = replace(drawn, color=old.color, variant=old.variant)
    return SceneChange("moved", old, new), _without(things, old, new)


def _appear(things: Things, rng: np.random.Generator) -> tuple[SceneChange, Things]:
    if len(things) == MAX_THINGS:
        return _disappear(things, rng)
    kind = str(rng.choice(KINDS))
    places = _free(things, kind)
    zone, slot = places[int(rng.integers(len(places)))]
    new = sample_thing(rng, kind, zone, slot)
    return SceneChange("appeared", None, new), (*things, new)


def _disappear(things: Things, rng: np.random.Generator) -> tuple[SceneChange, Things]:
    if not things:
        return _appear(things, rng)
    old = things[int(rng.integers(len(things)))]
    return SceneChange("disappeared", old, None), _without(things, old)


def _recolor(things: Things, rng: np.random.Generator) -> tuple[SceneChange, Things]:
    paintable = _alone(things, [kind for kind in KINDS if kind not in ("cone", "stop sign")])
    if not paintable:
        return _nothing(things, rng)
    old = paintable[int(rng.integers(len(paintable)))]
    color = old.color
    while color == old.color:
        color = sample_color(rng, old.kind)
    new = replace(old, color=color)
    return SceneChange("recolored", old, new), _without(things, old, new)


_CHANGERS = {
    "none": _nothing,
    "moved": _move,
    "appeared": _appear,
    "disappeared": _disappear,
    "recolored": _recolor,
}


def _alone(things: Things, kinds: Sequence[str]) -> list[SceneObject]:
    """Things that are the only one of their kind: 'the ball' is then clear."""
    counts = Counter(thing.kind for thing in things)
    return [thing for thing in things if counts[thing.kind] == 1 and thing.kind in kinds]


def _free(things: Things, kind: str) -> list[tuple[str, float]]:
    """Places (zone, slot) where a thing of a kind can stand and none does."""
    taken = {(t.zone, min(SLOTS[t.zone], key=lambda slot: abs(slot - t.bearing))) for t in things}
    places = [(zone, slot) for zone, slots in SLOTS.items() for slot in slots]
    return [p for p in places if p not in taken and not (kind in ROADSIDE and p[0] == "ahead")]


def _without(things: Things, old: SceneObject, *new: SceneObject) -> Things:
    return (*(thing for thing in things if thing is not old), *new)
