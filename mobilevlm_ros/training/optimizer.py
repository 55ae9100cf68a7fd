# SPDX-License-Identifier: Apache-2.0
"""AdamW's parameter groups and the learning rate, as the official trainer sets them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from mobilevlm_ros.training.recipe import OptimizerSettings, ScheduleSettings

PROJECTOR = "mm_projector"


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients, in groups with and without decay; the projector has
    two
    groups of its own where it has its own rate. Group key `peak`: the rate that the schedule scales."""
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    own_rate = settings.projector_learning_rate
    groups = []
    for projector in (False, True) if own_rate is not None else (None,):
        for decays in (True, False):
            chosen = [
                parameter
                for name, parameter in trained
                if _decays(name, norms) == decays and projector in (None, PROJECTOR in name)
            ]
            rate = own_rate if projector else settings.learning_rate
            groups.append(
                {"params": chosen, "peak": rate, "weight_decay": settings.weight_decay if decays else 0.0}
            )
    return torch.optim.AdamW(
        groups, settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=settings.eps
    )


def _decays(name: str, norms: Iterable[str]) -> bool:
    """Officially RMSNorms decay too, and everything called bias does not."""
    return "bias" not in name and name.rpartition(".")[0] not in norms


class Schedule:
    """The share of the peak rate at a step: linear warm-up from 0, a half cosine to `final_ratio`."""

    def __init__(self, settings: ScheduleSettings, steps: int) -> None:
        self.steps = steps
        self.warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * steps)
        self.final = settings.final_ratio

    def __call__(self, step: int) -> float:
        """Of step 0, 1, ...: the first is 0 and moves nothing but AdamW's means, as officially."""
        if step < self.warmup:
            return step / max(1, self.warmup)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final + (1 - self.final) * max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> list[float]:
        """Sets and returns the rate of each group."""
        share = self(step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        return [group["lr"] for group in optimizer.param_groups]
