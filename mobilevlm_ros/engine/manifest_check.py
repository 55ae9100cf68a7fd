# SPDX-License-Identifier: Apache-2.0
"""Values of a bundle.json that can never work, found before anything is allocated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.processing.prompt_template import TEMPLATES

if TYPE_CHECKING:
    from mobilevlm_ros.engine.manifest import Manifest

_LARGEST = 1 << 24
"""No size or count of a model reaches this."""
_LARGEST_IMAGE = 4096  # pixels of a side
_LONGEST_NAME = 200  # characters
_MANY_STOPS = 1000
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


def find_problem(manifest: Manifest) -> str:
    """What cannot be, in words that go behind 'bundle.json: '; empty for a manifest that can be."""
    for name in _SIZES:
        if not 0 < getattr(manifest, name) < _LARGEST:
            return f"{name} is no size of a model"
    if manifest.image_size > _LARGEST_IMAGE:
        return f"image_size is more than {_LARGEST_IMAGE} pixels"
    if not 0 < len(manifest.name) <= _LONGEST_NAME or not manifest.name.isprintable():
        return f"name is empty, longer than {_LONGEST_NAME} characters, or not printable"
    if manifest.template not in TEMPLATES:
        return f"template is none of {', '.join(TEMPLATES)}"
    if len(manifest.stop_ids) > _MANY_STOPS or any(i >= manifest.vocab_size for i in manifest.stop_ids):
        return "stop_ids are not token ids of the vocabulary"
    if not (math.isfinite(manifest.temperature) and 0 <= manifest.temperature <= 100):
        return "temperature is not between 0 and 100"
    for name in ("model", "precision", "quality"):
        if _is_deeper(getattr(manifest, name), _DEEPEST):
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
