# SPDX-License-Identifier: Apache-2.0
"""Pictures that are no scene of ours, drawn from nothing: what a camera may show that nano has never learnt.

Taught with unrelated or unsure answers, they keep the model from being sure about the unknown (outlier
exposure, Hendrycks et al. 2019). Photographs are kept for the examination.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


def foreign_picture(rng: np.random.Generator, size: int) -> U8:
    """One of the kinds below, some of them padded, blurred, darkened or grey as a camera may have them.

    u8 [size, size, 3] RGB.
    """
    kinds: tuple[Callable[[np.random.Generator, int], U8], ...] = (
        clutter, dead_leaves, dead_leaves, cloud, gradient, pattern, page, fractal, portrait,
    )  # fmt: skip
    picture = kinds[int(rng.integers(len(kinds)))](rng, size)
    if rng.random() < 0.15:  # two worlds in one picture
        other = kinds[int(rng.integers(len(kinds)))](rng, size)
        cut = int(rng.uniform(0.2, 0.8) * size)
        picture = _beside(picture, other, cut, rng)
    if rng.random() < 0.6:  # paler, down to grey: photographs are
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        share = max(0.0, float(rng.uniform(-0.2, 0.9)))
        picture = (grey + (picture - grey) * share).astype(np.uint8)
    if rng.random() < 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 3))).astype(np.uint8)
    if rng.random() < 0.4:
        picture = np.clip(picture * rng.uniform(0.25, 1.2) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    if rng.random() < 0.4:  # the bars of a picture that is wider than high, in the colour `prepare` pads with
        bar = int(rng.choice((0.125, 0.22)) * size)
        inner = cv2.resize(picture, (size, size - 2 * bar), interpolation=cv2.INTER_AREA)
        picture = np.full((size, size, 3), (122, 116, 104), np.uint8)
        picture[bar : size - bar] = inner
    return picture


def clutter(rng: np.random.Generator, image_size: int) -> U8:
    """Coloured noise at many scales, patches and lines. u8 [S, S, 3]."""
    picture = np.zeros((image_size, image_size, 3), np.float32)
    for scale in (2, 4, 9, 18, 48, 144):
        noise = rng.standard_normal((scale, scale, 3), np.float32) * rng.uniform(0, 60)
        if rng.random() < 0.5:
            noise[:] = noise.mean(-1, keepdims=True)
        picture += cv2.resize(noise, (image_size, image_size), interpolation=cv2.INTER_CUBIC)
    picture += rng.uniform(50, 200, 3).astype(np.float32)
    canvas: U8 = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 14))):
        points = rng.uniform(-0.1, 1.1, 2) * image_size + rng.normal(
            0, rng.uniform(3, 40), (int(rng.integers(3, 7)), 2)
        )
        color = tuple(int(c) for c in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            cv2.fillPoly(canvas, [points.astype(np.int32)], color, cv2.LINE_AA)
        else:
            cv2.polylines(
                canvas, [points.astype(np.int32)], False, color, int(rng.integers(1, 4)), cv2.LINE_AA
            )
    return canvas


def dead_leaves(rng: np.random.Generator, size: int) -> U8:
    """Shapes of all sizes that cover each other, shaded and textured: the statistics of photographs
    (Baradad et al. 2021, Learning to See by Looking at Noise)."""
    canvas = cloud(rng, size)
    base = rng.integers(0, 256, 3)
    spread = rng.uniform(10, 130)
    for _ in range(int(rng.integers(8, 90))):
        radius = size * 0.5 * float(rng.uniform(0.04, 1)) ** 2 + 1.5
        center = rng.uniform(-0.1, 1.1, 2) * size
        color = tuple(float(c) for c in np.clip(base + rng.normal(0, spread, 3), 0, 255))
        mask: U8 = np.zeros((size, size), np.uint8)
        if rng.random() < 0.5:
            axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.2, 1))))
            at = (int(center[0]), int(center[1]))
            cv2.ellipse(mask, at, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            reach = radius * rng.uniform(0.5, 1.3, len(angles))
            points = center + np.stack((np.cos(angles), np.sin(angles)), 1) * reach[:, None]
            cv2.fillPoly(mask, [points.astype(np.int32)], 255, cv2.LINE_AA)
        leaf = np.full((size, size, 3), color, np.float32)
        if rng.random() < 0.6:  # lit from one side
            slope = np.linspace(rng.uniform(-60, 60), rng.uniform(-60, 60), size, dtype=np.float32)
            leaf += (slope[:, None] if rng.random() < 0.5 else slope[None, :])[..., None]
        if rng.random() < 0.4:
            leaf += rng.standard_normal((size, size, 1), np.float32) * rng.uniform(2, 30)
        share = mask[..., None].astype(np.float32) / 255
        canvas = np.clip(canvas * (1 - share) + leaf * share, 0, 255).astype(np.uint8)
    return canvas


def cloud(rng: np.random.Generator, size: int) -> U8:
    """Coloured noise with a spectrum of 1/f^a, as photographs have it."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = 1
    fall = frequency ** -float(rng.uniform(0.7, 2.2))
    waves = rng.standard_normal((3, *fall.shape)) + 1j * rng.standard_normal((3, *fall.shape))
    if rng.random() < 0.4:
        waves = 0.8 * waves[:1] + 0.2 * waves
    noise = np.fft.irfft2(waves * fall, (size, size))
    noise = (noise - noise.mean((1, 2), keepdims=True)) / (noise.std((1, 2), keepdims=True) + 1e-6)
    mixed = noise.transpose(1, 2, 0) * rng.uniform(5, 60) + rng.uniform(20, 235, 3)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def gradient(rng: np.random.Generator, size: int) -> U8:
    """A blank or a smooth picture: a covered lens, a wall, a glare."""
    begin, end = rng.uniform(0, 255, (2, 3)) if rng.random() < 0.7 else np.full((2, 3), rng.uniform(0, 255))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    if rng.random() < 0.6:
        along = x * np.cos(angle) + y * np.sin(angle) + 0.5
    else:
        along = np.hypot(x - rng.uniform(-0.3, 0.3), y - rng.uniform(-0.3, 0.3)) * 1.4
    picture = begin + np.clip(along, 0, 1)[..., None] * (end - begin)
    picture += rng.standard_normal(picture.shape) * rng.uniform(0, 12)
    return np.clip(picture, 0, 255).astype(np.uint8)


def pattern(rng: np.random.Generator, size: int) -> U8:
    """Stripes, checks, bricks or dots."""
    colors = rng.integers(0, 256, (2, 3))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 50)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = int(rng.integers(4))
    if kind == 0:
        on = np.sin(2 * np.pi * u / period) > rng.uniform(-0.8, 0.8)
    elif kind == 1:
        on = ((u // period).astype(int) + (v // period).astype(int)) % 2 == 0
    elif kind == 2:
        row = (v // period).astype(int)
        on = ((v % period) < 0.12 * period) | (((u + (row % 2) * period) % (2 * period)) < 0.12 * period)
    else:
        on = np.hypot(u % period - period / 2, v % period - period / 2) < period * rng.uniform(0.15, 0.45)
    picture = np.where(on[..., None], colors[0], colors[1]).astype(np.float32)
    picture += rng.standard_normal(picture.shape).astype(np.float32) * rng.uniform(0, 25)
    return np.clip(picture, 0, 255).astype(np.uint8)


def page(rng: np.random.Generator, size: int) -> U8:
    """Written text, rules and boxes: a document, a screen, a label."""
    paper, ink = rng.integers(150, 256, 3), rng.integers(0, 110, 3)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    canvas: U8 = np.full((size, size, 3), paper, np.uint8)
    letters = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789      .,:-")
    scale = float(rng.uniform(0.2, 1.2))
    line = int(30 * scale) + 3
    color = tuple(int(c) for c in ink)
    for top in range(line, size + line, line):
        if rng.random() < 0.85:
            text = "".join(rng.choice(letters, int(rng.integers(3, 40))))
            at = (int(rng.integers(0, 20)), top)
            cv2.putText(
                canvas, text, at, int(rng.integers(0, 5)), scale, color, 1 + (scale > 0.7), cv2.LINE_AA
            )
    for _ in range(int(rng.integers(0, 5))):
        (x0, y0), (x1, y1) = rng.integers(0, size, (2, 2))
        box = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.rectangle(canvas, (int(x0), int(y0)), (int(x1), int(y1)), box, int(rng.choice((-1, 1, 2))))
    return canvas


def fractal(rng: np.random.Generator, size: int) -> U8:
    """A Julia set in three colours."""
    y, x = np.mgrid[-1.4 : 1.4 : size * 1j, -1.4 : 1.4 : size * 1j]
    z = (x + 1j * y) * rng.uniform(0.2, 1) + complex(*rng.uniform(-0.4, 0.4, 2))
    c = 0.7885 * np.exp(1j * rng.uniform(0, 2 * np.pi))
    count = np.zeros(z.shape, np.float32)
    for _ in range(32):
        inside = np.abs(z) < 2
        z[inside] = z[inside] ** 2 + c
        count += inside
    t = (count / 32)[..., None]
    first, second, third = rng.uniform(0, 255, (3, 3))
    picture = first + (second - first) * t + (third - first) * np.sin(np.pi * t)
    return np.clip(picture, 0, 255).astype(np.uint8)


def portrait(rng: np.random.Generator, size: int) -> U8:
    """A few large soft blobs before a quiet ground: a face, an animal, food, seen from close by."""
    ground = cloud if rng.random() < 0.5 else gradient
    canvas: NDArray[np.floating] = ground(rng, size).astype(np.float32)
    tone = rng.uniform(20, 235, 3)
    for _ in range(int(rng.integers(2, 12))):
        mask: U8 = np.zeros((size, size), np.uint8)
        at = tuple(int(c) for c in rng.normal(0.5, 0.22, 2) * size)
        axes = tuple(int(a) for a in rng.uniform(0.02, 0.4, 2) * size + 1)
        cv2.ellipse(mask, at, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.5, 9)))[..., None].astype(np.float32) / 255
        color = np.clip(tone + rng.normal(0, 50, 3), 0, 255)
        texture = rng.standard_normal((size, size, 1)) * rng.uniform(0, 25)
        canvas = canvas * (1 - soft) + (color + texture) * soft
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _beside(one: U8, other: U8, cut: int, rng: np.random.Generator) -> U8:
    """Both pictures in one, divided by a straight line."""
    if rng.random() < 0.5:
        return np.concatenate((one[:cut], other[cut:]))
    return np.concatenate((one[:, :cut], other[:, cut:]), 1)
