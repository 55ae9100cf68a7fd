# SPDX-License-Identifier: Apache-2.0
"""The first stage: everything from random weights, on questions about scenes; a second loss for the tower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.image import normalize
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.simulation.questions import FAMILIES, ask
from mobilevlm_ros.simulation.render import Observation
from mobilevlm_ros.simulation.scene import KINDS, PAINTS
from mobilevlm_ros.training.nano.foreign_pictures import clutter
from mobilevlm_ros.training.nano.packing import IGNORE, Batch, Packer, Turn, splice
from mobilevlm_ros.training.nano.recipe import ScenesStage
from mobilevlm_ros.training.nano.scenes import OPEN, render_scenes

FIRST_TRAINING_SEED = (
    1_000_000  # the demo, the tests and the evaluation use seeds outside of the training range
)
_COLORS = (*PAINTS, "orange")


class PatchHeads(nn.Module):
    """Reads kind, colour and nearness of what each patch shows from the tower's features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in (len(KINDS) + 1, len(_COLORS) + 1, 3))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """features [B, P, D]; labels i64 [B, P, 3]. The mean cross-entropy; background counts a tenth."""
        hidden = self.norm(features).float()
        weight = torch.where(labels[..., 0] == 0, 0.1, 1.0).flatten()
        total = hidden.new_zeros(())
        for index, head in enumerate(self.heads):
            target = labels[..., index].flatten()
            loss = F.cross_entropy(head(hidden).flatten(0, 1), target, ignore_index=IGNORE, reduction="none")
            total = total + (loss * weight).sum() / (weight * (target != IGNORE)).sum().clamp(min=1)
        return total / len(self.heads)


@dataclass(frozen=True)
class Rows:
    """What a step learns from: pixels u8 [B, S, S, 3], patch labels i64 [B, P, 3], packed conversations."""

    pixels: np.ndarray
    patches: np.ndarray
    batch: Batch


class ScenesLessons:
    """Draws the rows of any step from (seed, step) alone, and says how wrong the model is about them."""

    def __init__(
        self, stage: ScenesStage, model: MobileVLM, tokenizer: Tokenizer, work: Path, workers: int
    ) -> None:
        vision = model.config.vision
        self.stage = stage
        self.model = model
        self.heads = PatchHeads(vision.hidden_size)
        self.packer = Packer(tokenizer, model.config.num_image_tokens)
        self.scenes = render_scenes(
            FIRST_TRAINING_SEED,
            stage.scenes,
            vision.image_size,
            vision.patch_size,
            cache=work,
            workers=workers,
        )

    def trained(self) -> list[nn.Parameter]:
        """All of the model, and the heads."""
        return [*self.model.parameters(), *self.heads.parameters()]

    def compile(self) -> None:
        """Once, for the stage's fixed shapes: up to four times the speed on a CPU, after a minute."""
        model = self.model
        model.model.forward = torch.compile(model.model.forward, dynamic=False)  # type: ignore[method-assign]
        model.encode_features = torch.compile(model.encode_features, dynamic=False)  # type: ignore[method-assign]

    def draw(self, step: int) -> Rows:
        """The rows of a step."""
        stage, scenes = self.stage, self.scenes
        rng = np.random.default_rng([stage.seed, step])
        chosen = rng.integers(len(scenes), size=stage.batch)
        pixels = scenes.pixels[chosen].copy()
        patches = np.stack([self._patch_targets(i) for i in chosen])
        for row in np.flatnonzero(rng.random(stage.batch) < stage.clutter):
            pixels[row] = clutter(rng, pixels.shape[1])
            patches[row] = IGNORE
        samples = [self._conversations(scenes.observations[i], rng) for i in chosen]
        return Rows(pixels, patches, self.packer.pack(samples, stage.length))

    def _patch_targets(self, index: int) -> np.ndarray:
        table = np.full((256, 3), IGNORE, np.int64)
        table[0] = 0
        for number, seen in enumerate(self.scenes.observations[index].seen, 1):
            thing = seen.thing
            table[number] = KINDS.index(thing.kind) + 1, _COLORS.index(thing.color) + 1, 1 + thing.is_near
        table[OPEN] = IGNORE
        return table[self.scenes.patches[index].ravel()]

    def _conversations(self, observation: Observation, rng: np.random.Generator) -> Iterator[list[Turn]]:
        """Conversations without end, every family in turn; some have a second turn."""
        open_turns: list[Turn] = []
        while True:
            for family in rng.permutation(FAMILIES):
                exchange = ask(observation, str(family), rng)
                if exchange is None:
                    continue
                open_turns.append((exchange.question, exchange.answer))
                if len(open_turns) == 2 or rng.random() >= self.stage.second_turns:
                    yield open_turns
                    open_turns = []

    def loss(self, rows: Rows) -> dict[str, Tensor]:
        """'loss' to minimise, and what it is made of: answers, patches, and the share of right tokens."""
        batch, model = rows.batch, self.model
        features = model.encode_features(torch.from_numpy(normalize(rows.pixels)))
        labels = torch.from_numpy(batch.labels)
        hidden = model.hidden_states(
            splice(model, batch, model.project(features)),
            positions=torch.from_numpy(batch.positions),
            mask=torch.from_numpy(batch.mask()),
        )
        taught = labels != IGNORE
        logits, target = model.lm_head(hidden[taught]).float(), labels[taught]
        answers = F.cross_entropy(logits, target)
        patches = self.heads(features, torch.from_numpy(rows.patches))
        accuracy = (logits.argmax(-1) == target).float().mean()
        total = answers + self.stage.patch_loss * patches
        return {"loss": total, "answers": answers, "patches": patches, "accuracy": accuracy}
