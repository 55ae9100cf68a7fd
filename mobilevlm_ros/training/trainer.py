# SPDX-License-Identifier: Apache-2.0
"""One step of training: the same for every stage, on one process or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobilevlm_ros.errors import TrainingError
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.training.data.batch import Batch
from mobilevlm_ros.training.lora import add_adapters
from mobilevlm_ros.training.objective import LanguageModel, Objective
from mobilevlm_ros.training.optimizer import PROJECTOR, Schedule, make_optimizer
from mobilevlm_ros.training.parallel import Processes
from mobilevlm_ros.training.recipe import Recipe


def choose_trained(model: MobileVLM | LanguageModel, recipe: Recipe) -> None:
    """Marks what the recipe trains; `lora` also puts the adapters in. The tower is never trained."""
    if recipe.train == "lora":
        assert isinstance(model, MobileVLM)
        add_adapters(model, recipe.lora, recipe.run.seed)
        return
    for name, parameter in model.named_parameters():
        projector = PROJECTOR in name
        parameter.requires_grad_(
            "vision_tower" not in name and (projector if recipe.train == "projector" else True)
        )


@dataclass(frozen=True)
class Step:
    """What a step did: mean loss over its batches and processes, rate of each group, gradient norm before
    clipping, tokens taught on this process."""

    loss: float
    rates: list[float]
    gradient_norm: float
    taught: int


class Trainer:
    """Model, optimiser and schedule. `objective.model` has its trained parameters marked."""

    def __init__(
        self, objective: Objective, recipe: Recipe, steps: int, processes: Processes | None = None
    ) -> None:
        self.recipe = recipe
        self.processes = processes or Processes()
        self.device = self.processes.device
        self.objective = self.processes.shard(objective.to(self.device), recipe.run)
        self.optimizer = make_optimizer(self.objective, recipe.optimizer)
        self.schedule = Schedule(recipe.schedule, steps)
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        # Sharded models cast for themselves.
        self.autocast = recipe.run.precision == "bf16" and not self.processes.many

    def step(
        self, number: int, batches: Sequence[Batch], watch: Callable[[float], None] | None = None
    ) -> Step:
        """Accumulates the gradients of `batches`' mean losses and moves the weights once.

        `watch` is called after each batch's gradients, with its share of the loss. Raises TrainingError when
        the loss or a gradient is not finite; nothing has been changed then.
        """
        rates = self.schedule.apply(self.optimizer, number)
        self.objective.train()
        # Dropout then depends on seed, step and process alone: a resumed run draws what an unbroken one
        # draws.
        torch.manual_seed(
            (self.recipe.run.seed * 1_000_003 + number) * self.processes.count + self.processes.rank
        )
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(batches):
            self.processes.exchange_gradients(self.objective, index == len(batches) - 1)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                loss: Tensor = self.objective(batch.to(self.device)) / len(batches)
            loss.backward()
            total += loss.detach()
            if watch is not None:
                watch(loss.item())
        norm = self.gradient_norm(self.recipe.optimizer.clip)
        mean = self.processes.mean(total)
        if not (math.isfinite(mean) and math.isfinite(norm)):
            self.optimizer.zero_grad()
            names = ", ".join(name for batch in batches for name in batch.samples)
            raise TrainingError(
                f"step {number}: the loss is {mean} and the gradient's norm {norm}; samples of this process: "
                f"{names}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return Step(mean, rates, norm, sum(batch.taught for batch in batches))

    def gradient_norm(self, clip: float = 0.0) -> float:
        """The norm of all gradients together; they are scaled down to `clip` where that is not 0."""
        norm = torch.nn.utils.clip_grad_norm_(self.trained, clip or math.inf)
        return self.processes.whole(norm)
