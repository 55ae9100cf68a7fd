# SPDX-License-Identifier: Apache-2.0
"""A recipe: every number and choice of a training run, read from YAML, checked, each setting explained."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mobilevlm_ros.errors import RecipeError
from mobilevlm_ros.files.kinds import KINDS, OBJECT
from mobilevlm_ros.files.small_file import regular
from mobilevlm_ros.files.yaml_errors import yaml_reason
from mobilevlm_ros.files.yaml_words import Loader, Misread

_LARGEST = 1 << 20  # bytes of the file

RECIPE = "recipe.yaml"
"""The recipe's file in a run folder."""

StageName = Literal["pretrain-llm", "sft", "align", "instruct", "lora"]


def _setting(
    default: Any, help_text: str, at_least: float | None = None, at_most: float | None = None
) -> Any:
    return field(default=default, metadata={"help": help_text, "at_least": at_least, "at_most": at_most})


@dataclass(frozen=True)
class ModelSettings:
    """What the run starts from."""

    path: str = _setting("", "checkpoint directory or hub id to start from (MobileVLM, or a MobileLLaMA)")
    vision_tower: str = _setting("", "CLIP directory or hub id of the tower; empty: the checkpoint's own")
    projector_type: str = _setting("ldpnetv2", "projector to make where the start has none: ldpnet, ldpnetv2")
    tokenizer: str = _setting("", "tokenizer.model; empty: the start's")
    projector: str = _setting("", "mm_projector.bin of an align stage; empty: the start's, or a fresh one")


@dataclass(frozen=True)
class DataSettings:
    """What it learns from."""

    path: str = _setting("", "conversations (.json, .jsonl, or WebDataset .tar); pretrain-llm: token shards")
    images: str = _setting("", "folder that the conversations' picture paths start in")
    template: Literal["v1", "plain"] = _setting("v1", "v1 teaches answers of dialogues, plain captions")
    max_length: int = _setting(2048, "most token ids of a sample, before pictures are put in", 8)
    aspect: Literal["pad", "crop"] = _setting("pad", "how pictures become square")
    group_by_modality: bool = _setting(False, "batches of like length, pictures and text apart")
    errors: Literal["refuse", "skip"] = _setting("refuse", "malformed samples: stop, or leave out and count")
    long_samples: Literal["refuse", "skip", "truncate"] = _setting(
        "refuse", "samples longer than the context: stop, leave out, or cut as the official run does"
    )
    mixture: str = _setting("", "sources of token shards and their weights, e.g. wiki=4.5 c4=15; empty: all")
    workers: int = _setting(
        2, "processes that prepare batches; 0 prepares them in the training process", 0, 256
    )


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, as the official run sets it."""

    learning_rate: float = _setting(2e-4, "rate after the warm-up, the highest", 0)
    projector_learning_rate: float | None = _setting(
        None, "the same for the projector; null: learning_rate", 0
    )
    weight_decay: float = _setting(0.0, "of all but LayerNorms and biases", 0)
    beta1: float = _setting(0.9, "decay of the mean gradient", 0, 1)
    beta2: float = _setting(0.999, "decay of the mean squared gradient", 0, 1)
    eps: float = _setting(1e-8, "added to the denominator", 0)
    clip: float = _setting(0.0, "largest gradient norm; 0 does not clip", 0)


@dataclass(frozen=True)
class ScheduleSettings:
    """How long, and how the rate moves: linear warm-up from 0, then a cosine."""

    epochs: float = _setting(1.0, "times that the data is seen", 0)
    steps: int = _setting(0, "optimiser steps; 0: as many as the epochs have", 0)
    warmup_ratio: float = _setting(0.03, "share of the steps that warm up, rounded up", 0, 1)
    warmup_steps: int = _setting(0, "steps that warm up; 0: by the ratio", 0)
    final_ratio: float = _setting(0.0, "rate at the end, as a share of the peak", 0, 1)


@dataclass(frozen=True)
class BatchSettings:
    """samples of a step = size x accumulation x processes."""

    size: int = _setting(16, "samples per process that go through the model together", 1)
    accumulation: int = _setting(1, "such batches per step; their mean losses are averaged", 1)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on every matrix of the language model's layers."""

    r: int = _setting(128, "rank of the adapters", 1, 4096)
    alpha: float = _setting(256, "scale; adapters add alpha / r of what they compute", 0)
    dropout: float = _setting(0.05, "share of the adapters' inputs that is dropped", 0, 0.99)


@dataclass(frozen=True)
class RunSettings:
    """How it runs."""

    seed: int = _setting(42, "of the order of samples, fresh weights and dropout", 0)
    precision: Literal["bf16", "fp32"] = _setting("bf16", "arithmetic; the trained weights are kept in fp32")
    gradient_checkpointing: bool = _setting(False, "compute activations again instead of keeping them")
    compile: bool = _setting(False, "torch.compile the layers; needs a C++ compiler")
    save_every: int = _setting(500, "steps between checkpoints to resume from", 1)
    keep: int = _setting(2, "checkpoints to keep", 1)
    sample_every: int = _setting(0, "steps between samples of what the model says; 0: at the end only", 0)
    tensorboard: bool = _setting(False, "write TensorBoard events too")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result."""

    stage: StageName = _setting("lora", "which stage of the paper")  # noqa: RUF009
    train: Literal["projector", "language", "all", "lora"] = _setting(
        "lora", "the projector alone; the language model; both; or the projector and adapters (lora)"
    )
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @property
    def sees_pictures(self) -> bool:
        """Whether the stage trains a MobileVLM; the others train a language model alone."""
        return self.stage in ("align", "instruct", "lora")

    def to_dict(self) -> dict[str, Any]:
        """As YAML holds it; `read_recipe` reads it back to an equal recipe."""
        return dataclasses.asdict(self)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a recipe file. Raises RecipeError."""
    try:
        data = yaml.load(regular(path, _LARGEST).read_text(encoding="utf-8"), Loader)  # nosec B506
    except FileNotFoundError:
        raise RecipeError(f"the recipe {path} does not exist; the paper's are in recipes/") from None
    except OSError as error:
        raise RecipeError(f"the recipe {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(f"the recipe {path} cannot be read: {yaml_reason(error)}") from error
    if not OBJECT.fits(data):
        raise RecipeError(f"the recipe {path} holds no settings; see docs/training.md")
    settings: dict[str, Any] = data
    return settings


def make_recipe(*layers: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from nested settings, later layers over earlier ones. Raises RecipeError naming the
    setting."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    recipe: Recipe = _build(Recipe, merged, source, "")
    _check_parts(recipe, source)
    return recipe


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Nested settings of `a.b=value` words; values are YAML. Raises RecipeError."""
    result: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set {setting}: write NAME=VALUE, for example optimizer.learning_rate=1e-4")
        try:
            value = yaml.load(text, Loader) if text else ""  # nosec B506
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {setting}: the value cannot be read: {error}") from error
        part: dict[str, Any] = {}
        layer = part
        *outer, last = name.split(".")
        for key in outer:
            layer[key] = {}
            layer = layer[key]
        layer[last] = value
        _merge(result, part)
    return result


def explain() -> list[tuple[str, str, str]]:
    """(name, default, meaning) of every setting, in order."""
    rows = []
    for item in dataclasses.fields(Recipe):
        if item.metadata:
            rows.append((item.name, str(item.default), item.metadata["help"]))
            continue
        for inner in dataclasses.fields(typing.get_type_hints(Recipe)[item.name]):
            shown = "null" if inner.default is None else str(inner.default)
            rows.append((f"{item.name}.{inner.name}", shown, inner.metadata["help"]))
    return rows


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _build(kind: Any, data: Any, source: str, prefix: str) -> Any:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{source}: {prefix.rstrip('.')} is {data!r}; it has settings of its own")
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    values = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise RecipeError(f"{source}: unknown setting {prefix}{key}; {hint}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            values[key] = _build(hint, value, source, f"{prefix}{key}.")
        else:
            values[key] = _value(hint, value, known[key].metadata, f"{source}: {prefix}{key}")
    return kind(**values)


def _value(hint: Any, value: Any, limits: Mapping[str, Any], name: str) -> Any:
    if isinstance(value, Misread):
        is_text = hint is str or typing.get_origin(hint) is Literal
        try:
            value = value.text if is_text else value.value if hint is bool else value.number
        except ValueError as error:
            raise RecipeError(f"{name} {error}") from None
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise RecipeError(f"{name} is {value!r}; known: {', '.join(typing.get_args(hint))}")
        return value
    if hint is float and isinstance(value, str):  # a number in quotes
        try:
            value = float(value)
        except ValueError:
            raise RecipeError(f"{name} is {value!r}; expected a number") from None
    if not KINDS[hint].fits(value):
        raise RecipeError(f"{name} is {value!r}; expected {KINDS[hint].name}")
    low, high = limits["at_least"], limits["at_most"]
    if hint in (int, float) and not ((low is None or value >= low) and (high is None or value <= high)):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise RecipeError(f"{name} is {value!r}; it must be {span}")
    return float(value) if hint is float else value


def _check_parts(recipe: Recipe, source: str) -> None:
    allowed = {
        "pretrain-llm": ("language",),
        "sft": ("language",),
        "align": ("projector", "all"),
        "instruct": ("projector", "all"),
        "lora": ("lora",),
    }[recipe.stage]
    if recipe.train not in allowed:
        raise RecipeError(
            f"{source}: train is {recipe.train!r}; the stage {recipe.stage} trains {' or '.join(allowed)}"
        )
    if recipe.data.template == "plain" and not recipe.sees_pictures:
        raise RecipeError(
            f"{source}: data.template plain teaches captions; the stage {recipe.stage} sees no pictures"
        )
