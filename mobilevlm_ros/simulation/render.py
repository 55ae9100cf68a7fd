# SPDX-License-Identifier: Apache-2.0
"""Draws a scene in perspective and says what of it can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.simulation.scene import CAMERA_HEIGHT, FOCAL, Scene, SceneObject
from mobilevlm_ros.simulation.shapes import RGB, Ellipse, Polygon, Shape, outline

HORIZON = 0.44  # fraction of the image height
_SUBPIXEL = 3  # fractional bits that OpenCV's drawing functions take
_MIN_VISIBLE = 0.5  # a thing shown less than this would make the truth a matter of opinion

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class VisibleObject:
    """One thing as it appears in a picture."""

    thing: SceneObject
    visible: float  # fraction of its pixels in the picture that nothing covers
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom exclusive


@dataclass(frozen=True)
class Observation:
    """A rendered picture with its ground truth."""

    image: U8  # [H, W, 3] RGB
    labels: U8  # [H, W]; 0 background, i + 1 where seen[i] shows
    seen: tuple[VisibleObject, ...]  # from left to right
    light: str


def observe(scene: Scene, seconds: float = 0.0, width: int = 640, height: int = 480) -> Observation:
    """Render `scene` at a time (seconds since its start).

    Raises ValueError for a picture smaller than 16 x 16.
    """
    if width < 16 or height < 16:
        raise ValueError(f"a rendered picture needs at least 16 x 16 pixels, got {width} x {height}")
    things = sorted(scene.at(seconds), key=lambda thing: thing.bearing)
    image = _background(scene, width, height)
    labels, visible = _draw(things, image, width, height)
    _develop(image, scene, seconds)
    seen = tuple(
        VisibleObject(thing, share, _bounding_box(labels == index + 1))
        for index, (thing, share) in enumerate(zip(things, visible))
    )
    return Observation(image, labels, seen, scene.light)


def clearly_visible(scene: Scene, phases: int = 5) -> bool:
    """Whether every thing stays in plain sight while the scene moves."""
    width, height = 160, 120
    for step in range(phases):
        things = scene.at(1.3 * step)
        _, visible = _draw(things, None, width, height)
        if any(share < _MIN_VISIBLE for share in visible):
            return False
    return True


def _draw(
    things: tuple[SceneObject, ...] | list[SceneObject], image: U8 | None, width: int, height: int
) -> tuple[U8, list[float]]:
    """Paint far things first. Returns the label map and the visible share of each thing."""
    labels: U8 = np.zeros((height, width), np.uint8)
    full = [0] * len(things)
    for index in sorted(range(len(things)), key=lambda i: -things[i].distance):
        thing = things[index]
        if image is not None:
            _shadow(image, thing)
        for shape in outline(thing):
            if image is not None:
                _paint(image, shape, thing, shape.color, cv2.LINE_AA)
            _paint(labels, shape, thing, (index + 1,), cv2.LINE_8)
        full[index] = int(np.count_nonzero(labels == index + 1))
    left = [int(np.count_nonzero(labels == index + 1)) for index in range(len(things))]
    return labels, [now / before if before else 0.0 for now, before in zip(left, full)]


def _paint(canvas: U8, shape: Shape, thing: SceneObject, color: tuple[int, ...], line: int) -> None:
    height, width = canvas.shape[:2]
    scale = FOCAL / thing.distance * width  # pixels per metre
    foot_x = thing.bearing * width
    foot_y = HORIZON * height + CAMERA_HEIGHT * scale
    fixed = 1 << _SUBPIXEL
    if isinstance(shape, Polygon):
        points = [
            (round((foot_x + x * scale) * fixed), round((foot_y - y * scale) * fixed))
            for x, y in shape.points
        ]
        cv2.fillPoly(canvas, [np.array(points, np.int32)], color, line, _SUBPIXEL)
    elif isinstance(shape, Ellipse):
        x, y = shape.center
        center = (round((foot_x + x * scale) * fixed), round((foot_y - y * scale) * fixed))
        axes = (round(shape.radii[0] * scale * fixed), round(shape.radii[1] * scale * fixed))
        cv2.ellipse(canvas, center, axes, 0, 0, 360, color, -1, line, _SUBPIXEL)


def _shadow(image: U8, thing: SceneObject) -> None:
    height, width = image.shape[:2]
    scale = FOCAL / thing.distance * width
    center = (round(thing.bearing * width), round(HORIZON * height + CAMERA_HEIGHT * scale))
    reach = 0.1 if thing.kind in ("stop sign", "traffic light") else 0.5
    axes = (max(1, round(reach * scale)), max(1, round(0.1 * scale)))
    top, left = max(0, center[1] - axes[1]), max(0, center[0] - axes[0])
    patch = image[top : center[1] + axes[1] + 1, left : center[0] + axes[0] + 1]
    if patch.size:
        dark = patch.copy()
        cv2.ellipse(dark, (center[0] - left, center[1] - top), axes, 0, 0, 360, (45, 45, 48), -1, cv2.LINE_AA)
        cv2.addWeighted(dark, 0.6, patch, 0.4, 0, dst=patch)


def _background(scene: Scene, width: int, height: int) -> U8:
    """Sky, skyline, ground and road markings; part of the scene, so drawn from its seed."""
    rng = np.random.default_rng([scene.seed, 0xBAC])
    horizon = round(HORIZON * height)
    sky = np.linspace((95, 150, 215), (205, 222, 236), horizon) + rng.uniform(-18, 18, 3)
    near_ground = np.array(
        ((96, 98, 102), (128, 116, 92), (92, 112, 74))[int(rng.integers(3))]
    ) + rng.uniform(-14, 14, 3)
    ground = np.linspace(near_ground * 1.12, near_ground * 0.92, height - horizon)
    rows = np.clip(np.concatenate((sky, ground)), 0, 255).astype(np.uint8)
    image: U8 = np.ascontiguousarray(np.broadcast_to(rows[:, None, :], (height, width, 3)))
    for _ in range(int(rng.integers(0, 7))):
        _skyline(image, rng, horizon)
    road = (78, 80, 84)
    if rng.random() < 0.6:
        spread = rng.uniform(0.45, 0.8)
        corners = [(0.49, HORIZON), (0.51, HORIZON), (0.5 + spread, 1.0), (0.5 - spread, 1.0)]
        cv2.fillConvexPoly(
            image, np.array([(x * width, y * height) for x, y in corners], np.int32), road, cv2.LINE_AA
        )
        _lane(image, spread * 0.9, rng)
    return image


def _skyline(image: U8, rng: np.random.Generator, horizon: int) -> None:
    height, width = image.shape[:2]
    x, tall = rng.uniform(0, width), rng.uniform(0.03, 0.16) * height
    if rng.random() < 0.5:
        tone = rng.uniform(118, 176)
        half = rng.uniform(0.02, 0.07) * width
        wall: RGB = (int(tone), int(tone * 0.97), int(tone * 0.93))
        cv2.rectangle(image, (int(x - half), int(horizon - tall)), (int(x + half), horizon), wall, -1)
    else:
        leaves: RGB = (int(rng.uniform(50, 78)), int(rng.uniform(84, 112)), int(rng.uniform(48, 70)))
        cv2.ellipse(
            image,
            (int(x), int(horizon - tall * 0.5)),
            (max(1, int(tall * 0.45)), max(1, int(tall * 0.5))),
            0,
            0,
            360,
            leaves,
            -1,
            cv2.LINE_AA,
        )


def _lane(image: U8, spread: float, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    line = (196, 196, 190)
    for side in (-1, 1):
        foot = (0.5 + side * spread) * width
        corners = [(0.5 * width, HORIZON * height), (foot, height), (foot + side * 0.02 * width, height)]
        cv2.fillConvexPoly(image, np.array(corners, np.int32), line, cv2.LINE_AA)
    if rng.random() < 0.5:
        for near in (2.2, 3.4, 5.2, 8.0):
            y0, y1 = (HORIZON * height + CAMERA_HEIGHT * FOCAL / d * width for d in (near, near * 1.25))
            w0, w1 = (0.07 * FOCAL / d * width for d in (near, near * 1.25))
            corners = [(width / 2 - w0, y0), (width / 2 + w0, y0), (width / 2 + w1, y1), (width / 2 - w1, y1)]
            cv2.fillConvexPoly(image, np.array(corners, np.int32), line, cv2.LINE_AA)


def _develop(image: U8, scene: Scene, seconds: float) -> None:
    """Light, exposure, blur and sensor noise, in place."""
    gain = np.full(3, scene.exposure)
    if scene.light == "dusk":
        gain *= (0.52, 0.43, 0.47)
    if scene.blur:
        cv2.GaussianBlur(image, (0, 0), max(0.1, scene.blur * image.shape[1]), dst=image)
    table = np.clip(np.arange(256)[:, None] * gain, 0, 255).astype(np.uint8)[None]
    cv2.LUT(image, table, dst=image)
    if scene.noise:
        rng = np.random.default_rng([scene.seed, int(round(seconds * 1000)) & 0xFFFFFFFF])
        grain = rng.standard_normal(image.shape, np.float32) * np.float32(scene.noise)
        cv2.add(image, grain, dst=image, dtype=cv2.CV_8U)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
