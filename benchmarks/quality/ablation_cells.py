# SPDX-License-Identifier: Apache-2.0
"""One cell of `ablations.py`: a variant of nano, trained for a fixed budget and scored on scenes it has not
seen.

Every cell has nano's frozen tower, or part of it, a fresh projector, and a language model; projector and
language model learn. What the tower sees is computed once and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mobilevlm_ros.checkpoints.checkpoint import load
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.model.projector import InvertedResidual
from mobilevlm_ros.processing.image import normalize, prepare
from mobilevlm_ros.processing.prompt_template import TEMPLATES
from mobilevlm_ros.processing.tokenizer import TOKENIZER, Tokenizer
from mobilevlm_ros.simulation.questions import FAMILIES, ask, describe
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene
from mobilevlm_ros.training.data.batch import Collate, Item
from mobilevlm_ros.training.data.labels import IGNORE
from mobilevlm_ros.training.nano.packing import Batch, Packer, splice
from mobilevlm_ros.training.objective import LanguageModel, Objective

FIRST_SEED, FIRST_SCORED_SEED = 7_600_000, 7_650_000
SIZE, GRID, LAYERS = 144, 12, (1, 2, 4)
REDUCED = 72
"""Side of the reduced input: with an MLP it gives as many tokens as LDP does at SIZE."""

QUESTIONS = tuple(family for family in FAMILIES if family != "description")
LENGTH = 150
"""Positions of a row behind the image: about five short questions."""


class Projector(nn.Module):
    """[PW] x `pointwise`, then depthwise blocks by their strides, in order: Table 9's notation."""

    def __init__(self, size_in: int, size_out: int, pointwise: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(size_in, size_out)]  # the language model's width, at least
        for _ in range(1, pointwise):
            layers += [nn.GELU(), nn.Linear(size_out, size_out)]
        self.pointwise = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*(InvertedResidual(size_out, stride) for stride in strides))

    def forward(self, x: Tensor) -> Tensor:
        """[B,N,C] -> [B,M,H]."""
        x = self.pointwise(x)
        if not len(self.blocks):
            return x
        side = int(x.shape[1] ** 0.5)
        grid = x.transpose(1, 2).unflatten(2, (side, side))
        tokens: Tensor = self.blocks(grid).flatten(2).transpose(1, 2)
        return tokens


@dataclass(frozen=True)
class Variant:
    """What a row of a table changes. `language`: nano (its own), random, text, chat; see prepare_language."""

    pointwise: int = 2
    strides: tuple[int, ...] = (1, 2)
    side: int = SIZE
    layers: int = 4
    language: str = "nano"
    template: str = "v1"

    @property
    def tokens(self) -> int:
        """Image tokens that the language model gets."""
        grid = self.side * GRID // SIZE
        for stride in self.strides:
            grid = -(-grid // stride)
        return grid**2


@dataclass(frozen=True)
class Budget:
    """What every cell may use."""

    steps: int
    rows: int = 8
    scenes: int = 480
    scored: int = 120
    rate: float = 1.5e-3
    language_steps: int = 150


class Bench:
    """nano, the scenes, and what its tower sees of them: shared by all cells."""

    def __init__(self, nano: Path, work: Path, budget: Budget) -> None:
        self.nano, self.work, self.budget = nano, work, budget
        self.tokenizer = Tokenizer(nano / TOKENIZER)
        self.model = load(nano).float().eval()
        weights = b"".join(file.read_bytes() for file in sorted(nano.glob("*.safetensors")))
        self.identity = hashlib.sha256(weights).hexdigest()[:12]
        count = budget.scenes + budget.scored
        seeds = [FIRST_SEED + at for at in range(budget.scenes)]
        seeds += [FIRST_SCORED_SEED + at for at in range(count - budget.scenes)]
        self.scenes = [sample_scene(seed) for seed in seeds]
        self.seen: list[Observation] = []
        self.features = self._features(seeds)

    def _features(self, seeds: list[int]) -> dict[tuple[int, int], Tensor]:
        """By (side, layers): f16 [scenes, patches, D]."""
        file = self.work / f"features-{self.identity}-{len(seeds)}.pt"
        kept: dict[tuple[int, int], list[Tensor]] = {}
        done = torch.load(file, weights_only=True) if file.is_file() else None
        for seed, scene in zip(tqdm(seeds, desc="scenes", disable=None), self.scenes, strict=True):
            seconds = float(np.random.default_rng([seed, 0xAB1A]).uniform(0, 30))
            observation = observe(scene, seconds, 320, 240)
            self.seen.append(observation)
            for side in (SIZE, REDUCED) if done is None else ():
                pixels = torch.from_numpy(normalize(prepare(observation.image, side)[None]))
                for layers, features in self._encode(pixels).items():
                    kept.setdefault((side, layers), []).append(features.half())
        if done is None:
            done = {f"{side} {layers}": torch.cat(rows) for (side, layers), rows in kept.items()}
            torch.save(done, file)
        return {(int(k.split()[0]), int(k.split()[1])): rows for k, rows in done.items()}

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> dict[int, Tensor]:
        """The tower's features after 1, 2 and 4 layers; places are interpolated for a reduced input."""
        tower = self.model.vision
        embeddings = tower.embeddings
        patches = embeddings.patch_embedding(pixels)
        side = patches.shape[-1]
        places = embeddings.position_embedding.weight
        grid = places[1:].T.reshape(1, -1, GRID, GRID)
        if side != GRID:
            grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
        first = embeddings.class_embedding.expand(len(pixels), 1, -1) + places[0]
        x = torch.cat([first, (patches + grid).flatten(2).transpose(1, 2)], 1)
        x = tower.pre_layrnorm(x)
        found = {}
        for number, layer in enumerate(tower.encoder.layers[: max(LAYERS)], 1):
            x = layer(x)
            if number in LAYERS:
                found[number] = x[:, 1:]
        return found


def run_cell(bench: Bench, variant: Variant, seed: int) -> dict[str, Any]:
    """Trains and scores one variant; returns its marks."""
    budget, began = bench.budget, perf_counter()
    torch.manual_seed(seed)
    model = load(bench.nano).float()
    if variant.language != "nano":
        words = prepare_language(bench, variant.language, seed)
        model.load_state_dict(words, strict=False)
    size_in, size_out = model.config.vision.hidden_size, model.config.language.hidden_size
    model.model.mm_projector = Projector(size_in, size_out, variant.pointwise, variant.strides)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision_tower" not in name)
    packer = Packer(bench.tokenizer, variant.tokens)
    packer.template = TEMPLATES[variant.template]
    length = len(packer.prefix()) + LENGTH
    features = bench.features[variant.side, variant.layers]
    rng = np.random.default_rng([seed, 0xCE11])

    def rows(chosen: np.ndarray, draw: np.random.Generator) -> tuple[Batch, Tensor]:
        samples = [_questions(bench.seen[at], draw) for at in chosen]
        return packer.pack(samples, length), features[torch.from_numpy(chosen)].float()

    def step() -> Tensor:
        batch, seen = rows(rng.integers(budget.scenes, size=budget.rows), rng)
        logits, target = _answers(model, batch, seen)
        return F.cross_entropy(logits, target)

    last = _optimise(step, [p for p in model.parameters() if p.requires_grad], budget.steps, budget.rate)
    right = asked = 0
    scoring = np.random.default_rng(3)  # the same questions for every cell, where the rows hold as many
    model.eval()
    with torch.no_grad():
        for at in range(budget.scenes, budget.scenes + budget.scored, 8):
            batch, seen = rows(np.arange(at, min(at + 8, budget.scenes + budget.scored)), scoring)
            logits, target = _answers(model, batch, seen)
            place = np.nonzero(batch.labels != IGNORE)
            conversation = place[0] * 1000 + batch.segments[place]
            wrong = set(conversation[(logits.argmax(-1) != target).numpy()])
            right, asked = right + len(set(conversation) - wrong), asked + len(set(conversation))
    return {
        "right": right,
        "asked": asked,
        "accuracy": right / asked,
        "loss": last,
        "tokens": variant.tokens,
        "projector_parameters": sum(p.numel() for p in model.model.mm_projector.parameters()),
        "seconds": round(perf_counter() - began, 1),
    }


def _answers(model: MobileVLM, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
    """Logits at the taught positions, and what is taught there."""
    embeddings = splice(model, batch, model.project(features))
    hidden = model.hidden_states(
        embeddings, positions=torch.from_numpy(batch.positions), mask=torch.from_numpy(batch.mask())
    )
    labels = torch.from_numpy(batch.labels)
    taught = labels != IGNORE
    return model.lm_head(hidden[taught]).float(), labels[taught]


def _questions(observation: Observation, rng: np.random.Generator) -> Iterator[list[tuple[str, str]]]:
    """Questions about a picture without end, each a conversation of its own."""
    while True:
        for family in rng.permutation(QUESTIONS):
            asked = ask(observation, str(family), rng)
            if asked is not None:
                yield [(asked.question, asked.answer)]


def _optimise(step: Callable[[], Tensor], trained: list[nn.Parameter], steps: int, rate: float) -> float:
    """AdamW with a warm-up of a tenth and a linear fall to zero. Returns the mean loss of the last tenth."""
    optimizer = torch.optim.AdamW(trained, rate, betas=(0.9, 0.98), weight_decay=0.05)
    losses = []
    for number in range(steps):
        share = min((number + 1) / max(1, steps // 10), (steps - number) / steps)
        optimizer.param_groups[0]["lr"] = rate * share
        loss = step()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[-max(1, steps // 10) :]))


def prepare_language(bench: Bench, kind: str, seed: int) -> dict[str, Tensor]:
    """A language model that has never seen a picture: with `random` weights; after reading sentences
    (`text`); or after that and as many steps of dialogues about described scenes (`chat`)."""
    budget = bench.budget
    config = bench.model.config.language
    torch.manual_seed(seed)
    model = LanguageModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    if kind != "random":
        file = bench.work / f"language-{kind}-{seed}-{budget.language_steps}.pt"
        if file.is_file():
            return dict(torch.load(file, weights_only=True))
        if kind == "chat":
            model.load_state_dict(prepare_language(bench, "text", seed))
        rng = np.random.default_rng([seed, 0x7E47])
        objective, collate = Objective(model), Collate(bench.tokenizer.unk_id, 256)

        def step() -> Tensor:
            scenes = (bench.seen[at] for at in rng.integers(budget.scenes, size=16))
            loss: Tensor = objective(collate([_read(bench, kind, scene, rng) for scene in scenes]))
            return loss

        _optimise(step, list(model.parameters()), budget.language_steps, budget.rate)
        torch.save(model.state_dict(), file)
    return dict(model.state_dict())


def _read(bench: Bench, kind: str, scene: Observation, rng: np.random.Generator) -> Item:
    asked = next(_questions(scene, rng))[0]
    sentence = describe(scene.seen)
    encode = bench.tokenizer.encode
    if kind == "text":  # sentences, all of them taught, no roles
        ids = [*encode(f"{sentence} {asked[0]} {asked[1]}"), bench.tokenizer.eos_id]
        return Item("text", ids, ids)
    template = TEMPLATES["v1"]
    prompt = encode(f"{template.opening}{sentence}\n{asked[0]}{template.assistant}")
    answer = [*encode(template.answer_start + asked[1], bos=False), bench.tokenizer.eos_id]
    return Item("chat", prompt + answer, [IGNORE] * len(prompt) + answer)
