# SPDX-License-Identifier: Apache-2.0
"""Values of a bundle.json that can never work, found before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mobilevlm_ros.processing.prompt_template import TEMPLATES

LARGEST = 1 << 24
"""No size or count of a model reaches this."""
LARGEST_IMAGE = 4096  # pixels of a side
LONGEST_NAME = 200  # characters
MANY_STOPS = 1000
HOTTEST = 100
_DEEPEST = 32
"""Levels of what is kept as it is; our own has four."""
_SIZES = (
    "image_size",
    "image_tokens",
    "hidden_size",
    "vocab_size",
    "num_layers",
    "num_kv_heads",
    "head_dim",
    "context_length",
    "max_tokens",
)


def find_problem(values: Mapping[str, Any]) -> str:
    """What cannot be, in words that go behind 'bundle.json: '; empty for a manifest that can be.

    `values` are a manifest's fields, each of its type.
    """
    for name in _SIZES:
        if not 0 < values[name] < LARGEST:
            return f"{name} is no size of a model"
    if values["image_size"] > LARGEST_IMAGE:
        return f"image_size is more than {LARGEST_IMAGE} pixels"
    if not 0 < len(values["name"]) <= LONGEST_NAME or not values["name"].isprintable():
        return f"name is empty, longer than {LONGEST_NAME} characters, or not printable"
    if values["template"] not in TEMPLATES:
        return f"template is none of {', '.join(TEMPLATES)}"
    stops = values["stop_ids"]
    if len(stops) > MANY_STOPS or any(i >= values["vocab_size"] for i in stops):
        return "stop_ids are not token ids of the vocabulary"
    if not (0 <= values["temperature"] <= HOTTEST and math.isfinite(values["temperature"])):
        return f"temperature is not between 0 and {HOTTEST}"
    for name in ("model", "precision", "quality"):
        if _is_deeper(values.get(name, {}), _DEEPEST):
            return f"{name} is nested deeper than {_DEEPEST} levels"
    return ""


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not layer:
            return False
    return True
