# SPDX-License-Identifier: Apache-2.0
"""Outlines of the things, as painted polygons and ellipses.

Coordinates are metres: x to the right of the thing's centre line, y up from the ground.
Later shapes paint over earlier ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mobilevlm_ros.simulation.scene import SIZES, SceneObject

RGB = tuple[int, int, int]
Point = tuple[float, float]

PALETTE: dict[str, RGB] = {
    "red": (212, 34, 38),
    "green": (36, 160, 62),
    "blue": (38, 82, 210),
    "yellow": (240, 208, 30),
    "white": (240, 240, 238),
    "purple": (142, 48, 178),
    "orange": (244, 118, 20),
}
_DARK: RGB = (34, 34, 38)
_POST: RGB = (120, 122, 126)
_SKIN: tuple[RGB, ...] = ((241, 203, 170), (205, 150, 110), (138, 90, 60), (90, 58, 40))
_TROUSERS: tuple[RGB, ...] = ((40, 44, 66), (66, 58, 50), (50, 50, 52))
_LAMPS: dict[str, RGB] = {"red": (255, 40, 36), "yellow": (255, 214, 40), "green": (40, 235, 96)}


@dataclass(frozen=True)
class Polygon:
    points: tuple[Point, ...]
    color: RGB


@dataclass(frozen=True)
class Ellipse:
    center: Point
    radii: Point
    color: RGB


Shape = Polygon | Ellipse


def _rect(left: float, bottom: float, right: float, top: float, color: RGB) -> Polygon:
    return Polygon(((left, bottom), (right, bottom), (right, top), (left, top)), color)


def _shade(color: RGB, factor: float) -> RGB:
    r, g, b = (min(255, int(c * factor)) for c in color)
    return r, g, b


def _ball(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    paint = PALETTE[thing.color]
    return [
        Ellipse((0, h / 2), (w / 2, h / 2), _shade(paint, 0.8)),
        Ellipse((-0.03 * w, 0.54 * h), (0.44 * w, 0.44 * h), paint),
        Ellipse((-0.15 * w, 0.68 * h), (0.1 * w, 0.08 * h), _shade(paint, 1.35)),
    ]


def _box(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    paint = PALETTE[thing.color]
    lean = 0.14 * w if thing.variant % 2 else -0.14 * w
    return [
        _rect(-0.43 * w, 0, 0.43 * w, 0.8 * h, paint),
        Polygon(
            ((-0.43 * w, 0.8 * h), (0.43 * w, 0.8 * h), (0.43 * w + lean, h), (-0.43 * w + lean, h)),
            _shade(paint, 1.2),
        ),
        _rect(-0.05 * w, 0, 0.05 * w, 0.8 * h, _shade(paint, 0.72)),
        _rect(-0.43 * w, 0.36 * h, 0.43 * w, 0.43 * h, _shade(paint, 0.72)),
    ]


def _car(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    paint = PALETTE[thing.color]
    lamp: RGB = (150, 12, 16) if thing.variant % 2 else (250, 244, 214)  # rear or front view
    return [
        _rect(-0.46 * w, 0, -0.28 * w, 0.3 * h, _DARK),
        _rect(0.28 * w, 0, 0.46 * w, 0.3 * h, _DARK),
        _rect(-0.5 * w, 0.16 * h, 0.5 * w, 0.58 * h, paint),
        Polygon(
            ((-0.44 * w, 0.56 * h), (0.44 * w, 0.56 * h), (0.33 * w, h), (-0.33 * w, h)), _shade(paint, 0.9)
        ),
        Polygon(
            ((-0.37 * w, 0.6 * h), (0.37 * w, 0.6 * h), (0.28 * w, 0.92 * h), (-0.28 * w, 0.92 * h)),
            (60, 74, 92),
        ),
        _rect(-0.47 * w, 0.42 * h, -0.33 * w, 0.52 * h, lamp),
        _rect(0.33 * w, 0.42 * h, 0.47 * w, 0.52 * h, lamp),
        _rect(-0.5 * w, 0.16 * h, 0.5 * w, 0.24 * h, _shade(paint, 0.6)),
    ]


def _cone(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    paint = PALETTE[thing.color]

    def half_width(level: float) -> float:
        return w * (0.36 - 0.31 * level)

    def band(low: float, high: float, color: RGB) -> Polygon:
        a, b = half_width(low), half_width(high)
        return Polygon(((-a, low * h), (a, low * h), (b, high * h), (-b, high * h)), color)

    return [
        _rect(-0.5 * w, 0, 0.5 * w, 0.08 * h, _shade(paint, 0.75)),
        band(0.06, 1.0, paint),
        band(0.36, 0.58, (244, 244, 244)),
    ]


def _person(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    shirt = PALETTE[thing.color]
    skin = _SKIN[thing.variant % len(_SKIN)]
    trousers = _TROUSERS[thing.variant // 8 % len(_TROUSERS)]
    return [
        _rect(-0.26 * w, 0, -0.04 * w, 0.47 * h, trousers),
        _rect(0.04 * w, 0, 0.26 * w, 0.47 * h, trousers),
        _rect(-0.5 * w, 0.42 * h, -0.32 * w, 0.58 * h, skin),
        _rect(0.32 * w, 0.42 * h, 0.5 * w, 0.58 * h, skin),
        Polygon(
            (
                (-0.34 * w, 0.44 * h),
                (0.34 * w, 0.44 * h),
                (0.5 * w, 0.56 * h),
                (0.42 * w, 0.82 * h),
                (-0.42 * w, 0.82 * h),
                (-0.5 * w, 0.56 * h),
            ),
            shirt,
        ),
        Ellipse((0, 0.91 * h), (0.2 * w, 0.088 * h), skin),
        Polygon(((-0.2 * w, 0.92 * h), (0.2 * w, 0.92 * h), (0.13 * w, h), (-0.13 * w, h)), (44, 32, 26)),
    ]


def _stop_sign(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    def octagon(scale: float, color: RGB) -> Polygon:
        corners = (math.radians(22.5 + 45 * k) for k in range(8))
        return Polygon(
            tuple((scale * w / 2 * math.cos(a), base + h / 2 + scale * h / 2 * math.sin(a)) for a in corners),
            color,
        )

    return [
        _rect(-0.05, 0, 0.05, base + h / 2, _POST),
        octagon(1.08, (240, 240, 240)),
        octagon(0.94, PALETTE["red"]),
        _rect(-0.34 * w, base + 0.4 * h, 0.34 * w, base + 0.6 * h, (244, 244, 244)),
    ]


def _traffic_light(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    shapes: list[Shape] = [
        _rect(-0.06, 0, 0.06, base, _POST),
        _rect(-w / 2, base, w / 2, base + h, _DARK),
    ]
    for level, state in ((0.83, "red"), (0.5, "yellow"), (0.17, "green")):
        lit = state == thing.color
        color = _LAMPS[state] if lit else _shade(_LAMPS[state], 0.25)
        radius = 0.4 * w if lit else 0.32 * w
        shapes.append(Ellipse((0, base + level * h), (radius, radius), color))
    return shapes


def _shuttle(thing: SceneObject, w: float, h: float, base: float) -> list[Shape]:
    """A small bus from the front: tall, with two windows and a lit sign above them."""
    paint = PALETTE[thing.color]
    return [
        _rect(-0.42 * w, 0, -0.26 * w, 0.14 * h, _DARK),
        _rect(0.26 * w, 0, 0.42 * w, 0.14 * h, _DARK),
        _rect(-0.5 * w, 0.07 * h, 0.5 * w, h, paint),
        _rect(-0.42 * w, 0.52 * h, 0.42 * w, 0.86 * h, (60, 74, 92)),
        _rect(-0.03 * w, 0.52 * h, 0.03 * w, 0.86 * h, paint),
        _rect(-0.34 * w, 0.9 * h, 0.34 * w, 0.97 * h, (250, 244, 214)),
    ]


_BUILDERS = {
    "ball": _ball,
    "box": _box,
    "car": _car,
    "cone": _cone,
    "person": _person,
    "stop sign": _stop_sign,
    "traffic light": _traffic_light,
    "shuttle": _shuttle,
}


def outline(thing: SceneObject) -> list[Shape]:
    """Shapes of one thing, back to front, in metres."""
    return _BUILDERS[thing.kind](thing, *SIZES[thing.kind])
