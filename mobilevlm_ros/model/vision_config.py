# SPDX-License-Identifier: Apache-2.0
"""The geometry of the vision tower: in a checkpoint's own config.json, or in that of a CLIP directory."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.files.hub_cache import find_clip_directory
from mobilevlm_ros.files.json_fields import Json, build, read_json, require

logger = logging.getLogger(__name__)

# What a CLIP config.json means when it leaves a key out (transformers' CLIPVisionConfig).
_CLIP_DEFAULTS = {
    "hidden_size": 768,
    "image_size": 224,
    "patch_size": 32,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}


@dataclass(frozen=True)
class VisionConfig:
    """A CLIP vision transformer. Defaults: openai/clip-vit-large-patch14-336, the tower of every release."""

    hidden_size: int = 1024
    image_size: int = 336
    patch_size: int = 14
    intermediate_size: int = 4096
    num_attention_heads: int = 16
    num_hidden_layers: int = 24
    layer_norm_eps: float = 1e-5
    hidden_act: str = "quick_gelu"

    @classmethod
    def from_json(cls, data: Json, source: str) -> VisionConfig:
        """From a CLIP config.json, nested (`vision_config`) or flat. Raises CheckpointError with `source`."""
        return build(cls, {**_CLIP_DEFAULTS, **data.get("vision_config", data)}, source)

    def __post_init__(self) -> None:
        require(
            self.image_size % self.patch_size == 0,
            f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}",
        )
        require(
            self.hidden_size % self.num_attention_heads == 0,
            "hidden_size is no multiple of num_attention_heads (vision tower)",
        )
        require(
            self.hidden_act in ("quick_gelu", "gelu"),
            f"unknown vision activation {self.hidden_act!r}; known: quick_gelu, gelu",
        )

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


def clip_geometry(directory: Path, data: Json) -> VisionConfig | None:
    """The tower's geometry from the CLIP directory that a config.json names, if that is at hand."""
    clip = find_clip_directory(directory, data.get("mm_vision_tower"))
    if clip is None:
        return None
    try:
        return VisionConfig.from_json(read_json(clip / "config.json"), str(clip / "config.json"))
    except CheckpointError as error:
        if "v2" not in str(data.get("mm_projector_type")):
            raise
        # The tower is the checkpoint's own: a damaged neighbour does not decide. Its tensors are checked.
        logger.warning("passed over: %s", error)
        return None
