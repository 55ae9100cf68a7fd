# SPDX-License-Identifier: Apache-2.0
"""The model a run starts with: a MobileVLM, or a language model with a tower and a projector put to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mobilevlm_ros.checkpoints.checkpoint import TOWER_PREFIX, TensorSource, expected_shapes
from mobilevlm_ros.checkpoints.hub import locate
from mobilevlm_ros.checkpoints.tensor_reader import CheckpointReader
from mobilevlm_ros.errors import CheckpointError, RecipeError
from mobilevlm_ros.files.json_fields import read_json
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.model.vision_config import VisionConfig
from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer
from mobilevlm_ros.training.objective import LanguageModel
from mobilevlm_ros.training.recipe import Recipe

PROJECTOR_PREFIX = "model.mm_projector."


@dataclass(frozen=True)
class Start:
    """Where a run's first weights come from, checked; no weights are read yet."""

    path: Path
    config: MobileVLMConfig | LanguageConfig
    clip: Path | None  # take the tower from there
    projector: Path | None
    tokenizer: Path

    @property
    def language(self) -> LanguageConfig:
        return self.config.language if isinstance(self.config, MobileVLMConfig) else self.config


def is_vision_language(path: Path) -> bool:
    """Whether a directory's config.json describes a MobileVLM rather than a language model."""
    data = read_json(path / "config.json")
    return "mm_projector_type" in data or "mm_vision_tower" in data


def open_start(recipe: Recipe) -> Start:
    """Finds and checks everything the recipe starts from. Raises RecipeError or CheckpointError."""
    settings = recipe.model
    if not settings.path:
        raise RecipeError("the recipe names no model to start from; give --model, a checkpoint or a hub id")
    path = locate(Path(settings.path))
    tokenizer = Path(settings.tokenizer) if settings.tokenizer else path / TOKENIZER
    sees = is_vision_language(path)
    if not recipe.sees_pictures:
        language = LanguageConfig.from_json(read_json(path / "config.json"), str(path / "config.json"))
        config: MobileVLMConfig | LanguageConfig = language
        clip = projector = None
    else:
        clip = locate(Path(settings.vision_tower)) if settings.vision_tower else None
        projector = Path(settings.projector) if settings.projector else None
        if projector is not None and not projector.is_file():
            raise RecipeError(
                f"model.projector {projector} does not exist; give an align stage's mm_projector.bin"
            )
        config = _vision_language_config(recipe, path, clip, sees)
        language = config.language
    Tokenizer(tokenizer).check_fits(language.vocab_size)
    return Start(path, config, clip, projector, tokenizer)


def _vision_language_config(recipe: Recipe, path: Path, clip: Path | None, sees: bool) -> MobileVLMConfig:
    aspect = "pad" if recipe.data.aspect == "pad" else "square"
    vision = None
    if clip is not None:
        source = str(clip / "config.json")
        vision = VisionConfig.from_json(read_json(clip / "config.json"), source)
    if sees and vision is None:
        return replace(MobileVLMConfig.from_directory(path), image_aspect_ratio=aspect)
    if sees:
        source = str(path / "config.json")
        config = MobileVLMConfig.from_json(read_json(path / "config.json"), source, vision)
        if config.vision != vision:
            raise CheckpointError(f"{clip} has another geometry than the tower of {path}")
        return replace(config, image_aspect_ratio=aspect, own_vision=True)
    if vision is None:
        raise RecipeError(
            f"{path} is a language model without a tower; set model.vision_tower, for example to "
            "openai/clip-vit-large-patch14-336"
        )
    return MobileVLMConfig(
        vision=vision,
        language=LanguageConfig.from_json(read_json(path / "config.json"), str(path / "config.json")),
        projector_type=recipe.model.projector_type,
        image_aspect_ratio=aspect,
        vision_tower=recipe.model.vision_tower,
    )


def load_start(start: Start, seed: int = 0) -> MobileVLM | LanguageModel:
    """The model in float32 on the CPU. A projector that nothing gives is drawn from `seed`, as PyTorch draws.

    Raises CheckpointError.
    """
    if isinstance(start.config, LanguageConfig):
        model: MobileVLM | LanguageModel = LanguageModel(start.config)
        reader = CheckpointReader(start.path)
        _fill(model, {}, reader, start)
        return model
    config = start.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MobileVLM(config)
    given: dict[str, Tensor] = {}
    if start.projector is not None:
        given |= read_projector(start.projector)
    if start.clip is not None:
        clip = CheckpointReader(start.clip)
        for key in expected_shapes(config):
            name = key.removeprefix(TOWER_PREFIX)
            if key.startswith(TOWER_PREFIX) and name in clip:
                given[key] = clip.tensor(name)
    if is_vision_language(start.path):
        source = TensorSource(start.path, config)
        if start.clip is None:
            source.check(expected_shapes(config))
        _fill(model, given, source, start)
    else:
        _fill(model, given, CheckpointReader(start.path), start, optional=(PROJECTOR_PREFIX,))
    return model


def random_start(start: Start, seed: int) -> LanguageModel:
    """A language model with fresh weights: normal with deviation 0.02, norms 1, as LLaMA begins."""
    model = LanguageModel(start.language)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02)
            else:
                parameter.fill_(1.0)
    return model


def read_projector(path: Path) -> dict[str, Tensor]:
    """The projector's tensors of an `mm_projector.bin` or `non_lora_trainables.bin`, named as in a
    checkpoint.

    Raises CheckpointError.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler that reads nonsense can raise anything
        raise CheckpointError(
            f"{path} is damaged, or holds more than weights: nothing in it was executed"
        ) from error
    found = {
        PROJECTOR_PREFIX + key.partition("mm_projector.")[2]: value
        for key, value in tensors.items()
        if "mm_projector." in key
    }
    if not found:
        raise CheckpointError(f"{path} holds no tensor of a projector")
    return found


def _fill(
    model: nn.Module,
    given: dict[str, Tensor],
    source: TensorSource | CheckpointReader,
    start: Start,
    optional: Iterable[str] = (),
) -> None:
    """Copies every parameter from `given`, else from `source`. Those that begin as `optional` may be
    absent."""
    names = {name for name, _ in model.named_parameters()}
    problems = [f"{key} is of another model" for key in given if key not in names]
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in given:
                value = given[key]
            elif key in source:
                value = source.tensor(key)
            elif key.startswith(tuple(optional)) or ".post_layernorm." in key:
                continue
            else:
                problems.append(f"{key} is missing")
                continue
            if value.shape != parameter.shape:
                problems.append(f"{key} is {list(value.shape)}, expected {list(parameter.shape)}")
            else:
                parameter.copy_(value)
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{start.path} does not fit: {'; '.join(problems[:5])}{more}")
