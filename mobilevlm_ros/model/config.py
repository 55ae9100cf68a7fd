# SPDX-License-Identifier: Apache-2.0
"""The geometry of a MobileVLM (tower, projector, language model) as its config.json tells it. No torch."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobilevlm_ros.files.json_fields import Json, build, naming, read_json, require
from mobilevlm_ros.files.kinds import COUNT, OBJECT, WHOLE
from mobilevlm_ros.model.other_models import ADAPTER_FILES as ADAPTER_FILES
from mobilevlm_ros.model.other_models import check_adapters, check_head_size, check_kind
from mobilevlm_ros.model.rope_config import rope_factor, rope_parameters
from mobilevlm_ros.model.vision_config import VisionConfig as VisionConfig
from mobilevlm_ros.model.vision_config import clip_geometry

LDPV2_GRID = 12
"""LDPv2 always pools to 12 x 12 tokens, whatever comes in."""


def _eos(value: Any, vocab_size: int) -> tuple[int, ...]:
    """An id or a list of ids, as transformers allows; LLaMA's </s> where there is none."""
    if value is None:
        return (2,)
    ids = value if isinstance(value, list) else [value]
    require(
        bool(ids) and all(COUNT.fits(i) and i < vocab_size for i in ids),
        f"eos_token_id is {str(value)[:80]}; expected token ids below {vocab_size}",
    )
    return tuple(dict.fromkeys(ids))


@dataclass(frozen=True)
class LanguageConfig:
    """A MobileLLaMA. Lengths in tokens. `rope_factor` stretches the context by interpolation."""

    vocab_size: int = 32000
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_factor: float = 1.0
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False

    @classmethod
    def from_json(cls, data: Json, source: str) -> LanguageConfig:
        """From a LLaMA config.json. Released 3B files also carry a wrong `n_head`: ignored."""
        act = data.get("hidden_act", "silu")
        require(act == "silu", f"{source}: unknown activation {act!r}; MobileLLaMA uses silu")
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        ):
            require(data.get(key) is not None, f"{source}: {key} is missing")
        check_head_size(data, source)
        given = {key: value for key, value in data.items() if value is not None}
        values = {
            "num_key_value_heads": data["num_attention_heads"],
            "rope_theta": rope_parameters(data).get("rope_theta", cls.rope_theta),
            **given,
            "rope_factor": rope_factor(data, source),
        }
        return build(cls, values, source)

    def __post_init__(self) -> None:
        require(
            self.hidden_size % self.num_attention_heads == 0,
            "hidden_size is no multiple of num_attention_heads",
        )
        require(
            self.head_dim % 2 == 0, f"head size {self.head_dim} is odd; rotary embeddings need an even one"
        )
        require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            "num_attention_heads is no multiple of num_key_value_heads",
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def context_length(self) -> int:
        """Tokens the model can attend to, image tokens included."""
        return int(self.max_position_embeddings * self.rope_factor)


@dataclass(frozen=True)
class MobileVLMConfig:
    """Everything needed to build the model and to prepare its inputs.

    `vision_tower` is the CLIP directory or hub name the checkpoint names; `own_vision` says that config.json
    itself carries the tower's geometry, so the tower stored in the checkpoint is the one to use.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    projector_type: str = "ldpnetv2"
    select_layer: int = -2
    select_feature: str = "patch"
    image_aspect_ratio: str = "pad"
    vision_tower: str | None = None
    own_vision: bool = True
    eos_token_ids: tuple[int, ...] = (2,)
    """Tokens that end an answer; the first is the tokenizer's </s> in every release."""

    @classmethod
    def from_directory(cls, path: str | Path) -> MobileVLMConfig:
        """Reads `path`/config.json and finds its tower's geometry: there, else in the CLIP directory named,
        else that of openai/clip-vit-large-patch14-336. Raises CheckpointError."""
        directory = Path(path)
        check_adapters(directory)
        data = read_json(directory / "config.json")
        generation = directory / "generation_config.json"
        if generation.is_file():  # transformers' generate() takes the end tokens from there
            ends = read_json(generation).get("eos_token_id")
            data = data if ends is None else {**data, "eos_token_id": ends}
        vision = None if OBJECT.fits(data.get("vision_config")) else clip_geometry(directory, data)
        return cls.from_json(data, source=str(directory / "config.json"), vision=vision)

    @classmethod
    def from_json(cls, data: Json, source: str, vision: VisionConfig | None = None) -> MobileVLMConfig:
        """From the contents of a config.json; `vision` is the tower's geometry if the file lacks it."""
        check_kind(data, source)
        require(
            not data.get("mm_use_im_start_end"),
            f"{source}: mm_use_im_start_end is not supported; no released MobileVLM has it",
        )
        layer = data.get("mm_vision_select_layer", -2)
        require(WHOLE.fits(layer), f"{source}: mm_vision_select_layer is {layer!r}; expected {WHOLE.name}")
        own = OBJECT.fits(data.get("vision_config"))
        if own:
            vision = VisionConfig.from_json(data, f"{source} (vision_config)")
        language = LanguageConfig.from_json(data, source)
        with naming(source):
            config = cls(
                vision=vision or VisionConfig(),
                language=language,
                # `linear` is what the official builder assumes for a checkpoint that does not say.
                projector_type=str(data.get("mm_projector_type", "linear")),
                select_layer=layer,
                select_feature=str(data.get("mm_vision_select_feature", "patch")),
                image_aspect_ratio=str(data.get("image_aspect_ratio") or "square"),
                vision_tower=str(data["mm_vision_tower"]) if data.get("mm_vision_tower") else None,
                own_vision=own,
                eos_token_ids=_eos(data.get("eos_token_id"), language.vocab_size),
            )
        size = config.vision.hidden_size
        require(
            data.get("mm_hidden_size", size) == size,
            f"{source}: mm_hidden_size is {data.get('mm_hidden_size')}, but the tower has hidden_size {size};"
            f" put the CLIP directory it was trained with at {config.vision_tower!r}",
        )
        return config

    def __post_init__(self) -> None:
        known = re.fullmatch(r"linear|mlp[1-9]\d?x_gelu|ldpnet(v2)?.*", self.projector_type)
        require(
            bool(known),
            f"unknown mm_projector_type {self.projector_type!r}; known: ldpnet, ldpnetv2, linear, mlpNx_gelu",
        )
        require(
            self.select_feature in ("patch", "cls_patch"),
            f"unknown mm_vision_select_feature {self.select_feature!r}",
        )
        require(
            self.select_feature == "patch" or not self.projector_type.startswith("ldpnet"),
            "an ldpnet projector needs a square grid of patches: mm_vision_select_feature must be 'patch'",
        )
        require(
            0 <= self.num_vision_layers <= self.vision.num_hidden_layers,
            f"mm_vision_select_layer {self.select_layer} is not in the tower",
        )

    @property
    def num_vision_layers(self) -> int:
        """Tower layers that the selected features need (hidden state 0 is what enters the first layer)."""
        last = self.vision.num_hidden_layers
        return self.select_layer if self.select_layer >= 0 else last + 1 + self.select_layer

    @property
    def num_image_tokens(self) -> int:
        """Positions that one image takes in the language model's context."""
        grid = self.vision.grid
        if self.projector_type.startswith("ldpnetv2"):
            return LDPV2_GRID**2
        if self.projector_type.startswith("ldpnet"):
            return ((grid + 1) // 2) ** 2
        return grid**2 + (self.select_feature == "cls_patch")

    @property
    def aspect(self) -> Literal["pad", "crop"]:
        """How `processing.image.prepare` squares an image for this model."""
        return "pad" if self.image_aspect_ratio == "pad" else "crop"

    @property
    def uses_stored_tower(self) -> bool:
        """Whether inference uses the checkpoint's tower; for V1 the official loader uses CLIP's own."""
        return self.own_vision or "v2" in self.projector_type

    def to_json_dict(self) -> dict[str, Any]:
        """The contents of a config.json that `from_json` reads back to an equal configuration."""
        language = asdict(self.language)
        factor = language.pop("rope_factor")
        first, *others = self.eos_token_ids
        data = {
            "architectures": ["MobileLlamaForCausalLM"],
            "model_type": "mobilevlm",
            "bos_token_id": 1,
            "eos_token_id": [first, *others] if others else first,
            "pad_token_id": 0,
            "hidden_act": "silu",
            **language,
            "rope_scaling": None if factor == 1.0 else {"type": "linear", "factor": factor},
            "use_mm_proj": True,
            "mm_projector_type": self.projector_type,
            "mm_hidden_size": self.vision.hidden_size,
            "mm_vision_select_layer": self.select_layer,
            "mm_vision_select_feature": self.select_feature,
            "mm_use_im_patch_token": False,
            "mm_use_im_start_end": False,
            "image_aspect_ratio": self.image_aspect_ratio,
            "vision_tower_type": "clip",
        }
        if self.vision_tower is not None:
            data["mm_vision_tower"] = self.vision_tower
        if self.own_vision:
            data["vision_config"] = asdict(self.vision)
        return data
